# SPDX-License-Identifier: Apache-2.0
"""The policy: latent action prediction and action decoding on a vision-language backbone (paper §4)."""

from .configuration_cyclemimic import CycleMimicConfig
from .configuration_prismatic import PrismaticConfig
from .modeling_cyclemimic import (
    CycleMimicActionOutput,
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicLatentActionOutput,
)
from .modeling_prismatic import PrismaticForConditionalGeneration, PrismaticModel
from .processing_cyclemimic import CycleMimicProcessor
from .tiny_cyclemimic import make_tiny_backbone_config

__all__ = [
    "CycleMimicActionOutput",
    "CycleMimicConfig",
    "CycleMimicForActionPrediction",
    "CycleMimicForLatentActionPrediction",
    "CycleMimicLatentActionOutput",
    "CycleMimicProcessor",
    "PrismaticConfig",
    "PrismaticForConditionalGeneration",
    "PrismaticModel",
    "make_tiny_backbone_config",
]
