# SPDX-License-Identifier: Apache-2.0
"""One configuration and one Trainer a stage: thin subclasses of transformers' own."""
