# SPDX-License-Identifier: Apache-2.0
"""Rows that the new words get in a backbone's matrices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled


@contextmanager
def _gathered(weight: nn.Parameter) -> Iterator[None]:
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


def widen_vocabulary(backbone: PreTrainedModel, size: int, multiple: int) -> range:
    """Gives the backbone rows for `size` words at least, in a number that `multiple` divides; returns the ids that it didn't have."""
    known_size = cast(nn.Embedding, backbone.get_input_embeddings()).num_embeddings
    size = max(known_size, size)
    size += -size % multiple
    if size > known_size:
        backbone.resize_token_embeddings(size, mean_resizing=False)
    return range(known_size, size)


def start_rows(backbone: PreTrainedModel, token_ids: Iterable[int]) -> None:
    """Draws the rows of `token_ids` anew, in the embeddings and in the vocabulary head, once where these are tied."""
    rows = torch.tensor([*token_ids], dtype=torch.long).unique()
    tables: list[Any] = [backbone.get_input_embeddings(), backbone.get_output_embeddings()]
    for weight in {id(table.weight): table.weight for table in tables}.values():
        with _gathered(weight):
            initialise_rows(weight, rows.to(weight.device))


__all__ = ["initialise_rows", "start_rows", "widen_vocabulary"]
