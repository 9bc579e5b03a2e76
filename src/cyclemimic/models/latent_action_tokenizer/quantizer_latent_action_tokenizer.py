# SPDX-License-Identifier: Apache-2.0
"""The quantizer of the latent action tokenizer: embeddings to words of a codebook (paper §3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_latent_action_tokenizer import LatentActionTokenizerConfig
from .precision_latent_action_tokenizer import unit_length
from .ranks_latent_action_tokenizer import all_gather_rows


class LatentActionTokenizerQuantizer(nn.Module):
    """Nearest word of the codebook, straight-through (VQ-VAE, paper §3), with dead words brought back."""

    codebook_shift: torch.Tensor
    idle_steps: torch.Tensor

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.dead_code_steps = config.dead_code_steps
        self.normalize = config.normalize_codebook
        self.codebook = nn.Parameter(torch.zeros(config.codebook_size, config.codebook_dim))
        # How far words have been moved otherwise than by training. In the parameter it would be lost: under ZeRO and FSDP,
        # the optimizer steps from a copy of its own.
        self.register_buffer("codebook_shift", torch.zeros(config.codebook_size, config.codebook_dim))
        # Steps since each word was last used; starts at the limit, so that the first batch places every word.
        self.register_buffer("idle_steps", torch.full((config.codebook_size,), config.dead_code_steps))

    @property
    def words(self) -> torch.Tensor:
        """The codebook's vectors `e_k`, `(codebook_size, codebook_dim)`, of unit length if so configured."""
        # DeepSpeed keeps buffers in fp32 beside weights in bf16.
        words = self.codebook + self.codebook_shift.to(self.codebook.dtype)
        return unit_length(words) if self.normalize else words

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """Vectors of word indices: `(...)` → `(..., codebook_dim)`."""
        return F.embedding(codes, self.words)

    def forward(self, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            embeddings (`torch.FloatTensor` of shape `(batch_size, num_latent_tokens, codebook_dim)`): `z^e`.

        Returns:
            codes `(batch_size, num_latent_tokens)` and their vectors, which carry gradients to the codebook only.
        """
        # Whoever only looks, as without gradients, is to leave the words where they are.
        is_learning = self.training and torch.is_grad_enabled()
        if not is_learning or self.dead_code_steps == 0:
            codes = self.nearest(embeddings.detach())
            return codes, self.lookup(codes)
        candidates = all_gather_rows(embeddings.detach()).flatten(0, 1).float()
        # A batch that overflowed, on any rank, says nothing of any word; nor does one of a single pair many times over, which
        # standardising takes to zero: words there would have no direction, and an enormous gradient.
        tells = candidates.isfinite().all() & candidates.any()
        self._revive_dead_codes(candidates, tells)
        codes = self.nearest(embeddings.detach())
        # Not `F.one_hot`: it asks the device whether all words are in range.
        words = torch.arange(self.idle_steps.shape[0], device=codes.device)
        used = (all_gather_rows(codes).flatten()[:, None] == words).any(0)
        self.idle_steps.copy_(torch.where(tells, (self.idle_steps + 1) * ~used, self.idle_steps))
        return codes, self.lookup(codes)

    def nearest(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Word indices: `(batch_size, num_latent_tokens, codebook_dim)` → `(batch_size, num_latent_tokens)`."""
        # In fp32 whatever the autocast: near ties decide which word is trained.
        return torch.cdist(embeddings.float(), self.words.detach().float()[None]).argmin(-1)

    @torch.no_grad()
    def _revive_dead_codes(self, candidates: torch.Tensor, tells: torch.Tensor) -> None:
        """Moves words unused for `dead_code_steps` onto embeddings `(num_embeddings, codebook_dim)` of all ranks that are far
        from every word, several onto one where embeddings are few; none where these tell nothing."""
        distance = torch.cdist(candidates, self.words.float()).amin(-1)
        # Spread over the worse-served half instead of its top, which is a few outliers close to each other.
        order = distance.argsort(descending=True)[: max(1, distance.shape[0] // 2)]
        slots = torch.arange(self.codebook.shape[0], device=order.device) * order.shape[0] // self.codebook.shape[0]
        dead = (self.idle_steps >= self.dead_code_steps) & tells
        shift = candidates[order[slots]].to(self.codebook.dtype) - self.codebook
        self.codebook_shift.copy_(torch.where(dead[:, None], shift, self.codebook_shift))
        self.idle_steps.masked_fill_(dead, 0)
