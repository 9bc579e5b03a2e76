# SPDX-License-Identifier: Apache-2.0
"""What data-parallel ranks tell each other, so that several processes compute what one with the whole batch would."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks; to each, the gradients of all, as each of their losses depends on it."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _summed(gradient)


def _summed(tensor: torch.Tensor) -> torch.Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def all_gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of all data-parallel ranks in order of rank; each rank must hold as many."""
    if num_ranks() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(num_ranks())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def mean_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The mean over data-parallel ranks, with gradients to each of them."""
    return tensor if num_ranks() == 1 else _SumOverRanks.apply(tensor) / num_ranks()


def global_mean(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor that each data-parallel rank holds a part of, all as large."""
    return mean_over_ranks(tensor.mean())


def own_exponentials(like: torch.Tensor) -> torch.Tensor:
    """
    Numbers from the exponential distribution, of shape and device of `like`. Ranks whose generators are alike, as
    Trainer's are, draw for the rows of all and keep their own, lest all ranks draw the same.
    """
    drawn = like.new_empty(num_ranks(), *like.shape).exponential_()
    return drawn[dist.get_rank() if num_ranks() > 1 else 0]


def num_ranks() -> int:
    """How many data-parallel ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1
