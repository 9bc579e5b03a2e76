# SPDX-License-Identifier: Apache-2.0
"""What half precision cannot hold."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def in_fp32(values: torch.Tensor) -> torch.Tensor:
    """The values in fp32 at least: small floors and differences are nothing in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def unit_length(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors `(..., dim)`, each over its length; of the model's precision, and in fp32 under autocast."""
    vectors_of_unit_length = F.normalize(in_fp32(vectors), dim=-1)
    is_autocast = torch.is_autocast_enabled(vectors.device.type)
    return vectors_of_unit_length if is_autocast else vectors_of_unit_length.to(vectors.dtype)
