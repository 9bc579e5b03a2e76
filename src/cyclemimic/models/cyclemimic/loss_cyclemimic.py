# SPDX-License-Identifier: Apache-2.0
"""Losses of action chunks of which a part is padding (paper §4)."""

from __future__ import annotations

import torch
import torch.distributed as dist


def masked_mean_absolute_error(
    predictions: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None, is_global: bool
) -> torch.Tensor:
    """
    `L_a`, the mean absolute error of chunks of shape `(batch_size, chunk_size, action_dim)` over the steps that `mask`,
    `(batch_size, chunk_size)`, keeps.
    """
    errors = (predictions.float() - targets.float()).abs().mean(dim=-1)
    return errors.mean() if mask is None else mean_of_unmasked((errors * mask).sum(), mask.sum(), is_global)


def mean_of_unmasked(total: torch.Tensor, count: torch.Tensor, is_global: bool) -> torch.Tensor:
    """`total / count`. With `is_global`, the mean over data-parallel ranks of what they return is that over all they count."""
    count, num_ranks = count.float(), 1
    if is_global and dist.is_initialized():
        dist.all_reduce(count)
        num_ranks = dist.get_world_size()
    return total * num_ranks / count.clamp(min=1)


__all__ = ["masked_mean_absolute_error", "mean_of_unmasked"]
