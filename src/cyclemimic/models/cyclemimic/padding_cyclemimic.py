# SPDX-License-Identifier: Apache-2.0
"""How long the rows of a batch of prompts are, and where their padding stands."""

from __future__ import annotations

import torch

PADDING = ("padding", "max_length", "padding_side", "pad_to_multiple_of")


def padded_length(
    lengths: list[int],
    padding: bool | str = True,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    padding_side: str = "right",
) -> int:
    """
    Tokens of every row of a batch of samples of `lengths`; the arguments mean what they mean to a tokenizer.

    Raises:
        ValueError: samples of unequal lengths without padding, or that would have to be cut; no such padding.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"`padding_side` must be 'left' or 'right', got {padding_side!r}.")
    if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
        raise ValueError(f"`pad_to_multiple_of` must be at least 1, got {pad_to_multiple_of}.")
    longest = max(lengths)
    if padding in (False, "do_not_pad"):
        if min(lengths) < longest:
            raise ValueError(f"`padding` must be True for samples of unequal lengths, {lengths}; got {padding!r}.")
        return longest
    if padding == "max_length":
        if max_length is None or max_length < longest:
            raise ValueError(f"`max_length` must be at least {longest}, that of the longest sample, got {max_length}.")
        longest = max_length
    elif padding not in (True, "longest"):
        raise ValueError(f"`padding` must be True, False, 'longest' or 'max_length', got {padding!r}.")
    return longest + -longest % (pad_to_multiple_of or 1)


def padding_first(attention_mask: torch.Tensor, *rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """
    The mask and other rows `(batch_size, sequence_length)` with all padding moved to the left. What follows a prompt then
    stands beside it: recurrent layers would read padding in between, and a window of attention would be spent on it.
    """
    order = attention_mask.argsort(dim=1, stable=True)
    return tuple(row.gather(1, order) for row in (attention_mask, *rows))


__all__ = ["PADDING", "padded_length", "padding_first"]
