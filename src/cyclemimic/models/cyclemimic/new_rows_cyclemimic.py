# SPDX-License-Identifier: Apache-2.0
"""Rows that the new words get in a backbone's matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
from torch import nn
from transformers.integrations import is_deepspeed_zero3_enabled


@contextmanager
def gathered(weight: nn.Parameter) -> Iterator[None]:
    """The whole weight where ZeRO-3 has shared it out over the processes; what the first process makes of it stays."""
    if not is_deepspeed_zero3_enabled():
        yield
        return
    # By its name: with an import statement, the code that goes to the Hub would need it everywhere.
    deepspeed = import_module("deepspeed")
    with deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
        yield


@torch.no_grad()
def initialise_rows(weight: torch.Tensor, rows: torch.Tensor) -> None:
    """Draws `rows` of a `(vocabulary, hidden_size)` weight around the mean of the others, a tenth of their spread wide."""
    others = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    others[rows] = False
    spread, mean = torch.std_mean(weight[others].float(), dim=0)
    weight[rows] = (mean + 0.1 * spread * torch.randn(len(rows), len(mean), device=weight.device)).to(weight.dtype)


__all__ = ["gathered", "initialise_rows"]
