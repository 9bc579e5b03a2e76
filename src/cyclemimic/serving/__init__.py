# SPDX-License-Identifier: Apache-2.0
"""A policy as a model server of the VLA evaluation harness (`vla-eval`): benchmarks in containers ask it for actions."""
