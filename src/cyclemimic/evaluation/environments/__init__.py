# SPDX-License-Identifier: Apache-2.0
"""Simulated robots for recording and for closed-loop evaluation."""
