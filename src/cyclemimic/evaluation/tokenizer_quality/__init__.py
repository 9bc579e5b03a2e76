# SPDX-License-Identifier: Apache-2.0
"""Quality of a latent action tokenizer: what its codes say of the true motion, and whether on every body the same."""

from .page import write_quality
from .quality import TokenizerMeasurement, measure_tokenizer
from .settings import QualitySettings

__all__ = ["QualitySettings", "TokenizerMeasurement", "measure_tokenizer", "write_quality"]
