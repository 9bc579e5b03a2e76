# SPDX-License-Identifier: Apache-2.0
"""Latent actions of frame pairs, as Parquet."""
