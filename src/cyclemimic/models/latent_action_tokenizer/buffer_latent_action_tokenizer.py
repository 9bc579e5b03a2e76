# SPDX-License-Identifier: Apache-2.0
"""The latent action buffer (paper §3.2)."""

from __future__ import annotations

import torch
from torch import nn

from .configuration_latent_action_tokenizer import LatentActionTokenizerConfig
from .ranks_latent_action_tokenizer import all_gather_rows, own_exponentials


class LatentActionBuffer(nn.Module):
    """
    Z: the actions of the previous `buffer_batches` batches with the body each came from (paper §3.2). Holds word
    indices, so a sampled action always stands for the codebook's vectors of today. Global over data-parallel ranks.
    """

    codes: torch.Tensor
    embodiment_ids: torch.Tensor
    filled: torch.Tensor

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.sampling = config.buffer_sampling
        self.codebook_size = config.codebook_size
        shape = config.buffer_batches, config.buffer_batch_size
        self.register_buffer("codes", torch.zeros(*shape, config.num_latent_tokens, dtype=torch.long))
        self.register_buffer("embodiment_ids", torch.full(shape, -1))
        self.register_buffer("filled", torch.zeros(shape, dtype=torch.bool))

    @torch.no_grad()
    def add(self, codes: torch.Tensor, embodiment_ids: torch.Tensor, is_valid: torch.Tensor | None = None) -> None:
        """
        Puts one batch in, and the oldest out.

        Args:
            codes (`torch.LongTensor` of shape `(batch_size, num_latent_tokens)`), embodiment_ids (`torch.LongTensor` of shape
                `(batch_size,)`): The batch.
            is_valid (`torch.BoolTensor` of shape `()`, *optional*): Where false, as of numbers that overflowed, all stays as it is.
        """
        codes, embodiment_ids = all_gather_rows(codes), all_gather_rows(embodiment_ids)
        kept = min(codes.shape[0], self.codes.shape[1])
        # Body by body: the steps between rows might otherwise keep time with a batch that takes bodies in turn.
        by_body = embodiment_ids.argsort(stable=True)
        chosen = by_body[torch.arange(kept, device=codes.device) * codes.shape[0] // kept].sort().values
        is_filled = torch.arange(self.filled.shape[1], device=codes.device) < kept
        for buffer, values in (
            (self.codes, codes[chosen]),
            (self.embodiment_ids, embodiment_ids[chosen]),
            (self.filled, is_filled),
        ):
            moved = buffer.roll(1, 0)
            moved[0, : len(values)] = values
            buffer.copy_(moved if is_valid is None else torch.where(is_valid, moved, buffer))

    @torch.no_grad()
    def sample(self, embodiment_ids: torch.Tensor) -> torch.Tensor:
        """
        One action for each frame, from another body than the frame's wherever the buffer has one (paper §3.1, step 4).

        Args:
            embodiment_ids (`torch.LongTensor` of shape `(batch_size,)`): the bodies of the frames `o_c`.

        Returns:
            `torch.LongTensor` of shape `(batch_size, num_latent_tokens)`.
        """
        codes, filled = self.codes.flatten(0, 1), self.filled.flatten()
        crossing = filled & (self.embodiment_ids.flatten() != embodiment_ids[:, None])
        weights = torch.where(crossing.any(-1, keepdim=True), crossing, filled).float()
        if self.sampling == "distinct":
            # How often the action stands among those the frame may take: an action that bodies share is no rarer.
            groups = number_rows(codes, self.codebook_size).expand_as(weights)
            counts = torch.zeros_like(weights).scatter_add_(1, groups, weights).gather(1, groups)
            weights = weights / counts.clamp_min(1)
        # `torch.multinomial`, by its own means, but with other draws on each rank.
        return codes[(weights / own_exponentials(weights)).argmax(-1)]


def number_rows(codes: torch.Tensor, codebook_size: int) -> torch.Tensor:
    """
    The same number for the same action: `(num_actions, num_latent_tokens)` → `(num_actions,)`, each in `[0, num_actions)`.
    Of shapes that are known beforehand, unlike `torch.unique`, for which the host must wait.
    """
    numbers = torch.zeros_like(codes[:, 0])
    for column in codes.unbind(-1):
        # Numbered anew after every word: the number of all words together may be too large for 64 bits.
        keys, order = (numbers * codebook_size + column).sort()
        numbers = torch.empty_like(order).scatter_(0, order, (keys.diff(prepend=keys[:1]) != 0).cumsum(0))
    return numbers
