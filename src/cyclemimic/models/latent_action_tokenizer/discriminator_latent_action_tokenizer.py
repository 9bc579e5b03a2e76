# SPDX-License-Identifier: Apache-2.0
"""Discriminator Ψ of AC3: whether a frame is filmed or generated (paper §3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_latent_action_tokenizer import LatentActionTokenizerConfig
from .layers_latent_action_tokenizer import (
    LatentActionTokenizerPatchEmbeddings,
    LatentActionTokenizerSpatialLayer,
    fixed,
)


class LatentActionTokenizerDiscriminator(nn.Module):
    """Ψ: local, a logit a patch by an MLP, and global, one an image by convolution and pooling (paper §3.3)."""

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.grid_size = config.grid_size
        self.patch_embeddings = LatentActionTokenizerPatchEmbeddings(config)
        self.layers = nn.ModuleList(
            LatentActionTokenizerSpatialLayer(config) for _ in range(config.num_discriminator_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.local_head = self.global_head = None
        if "local" in config.discriminator_heads:
            self.local_head = nn.Sequential(
                nn.Linear(config.hidden_size, config.hidden_size), nn.GELU(), nn.Linear(config.hidden_size, 1)
            )
        if "global" in config.discriminator_heads:
            self.global_convolution = nn.Conv2d(config.hidden_size, config.hidden_size, 3, stride=2, padding=1)
            self.global_head = nn.Linear(config.hidden_size, 1)

    def forward(self, pixel_values: torch.Tensor, is_fixed: bool = False) -> tuple[torch.Tensor, ...]:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`).
            is_fixed (`bool`): Whether gradients go to the frames alone, and none to Ψ.

        Returns:
            Logits that the frame is real, as far as configured: local `(batch_size, num_patches)`, then global
            `(batch_size,)`.
        """
        with fixed(self, is_fixed):
            hidden_states = self.patch_embeddings(pixel_values)
            for layer in self.layers:
                hidden_states = layer(hidden_states, is_fixed)
            return self._judge(self.norm(hidden_states))

    def _judge(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = []
        if self.local_head is not None:
            logits.append(self.local_head(hidden_states).squeeze(-1))
        if self.global_head is not None:
            grid = hidden_states.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
            pooled = F.gelu(self.global_convolution(grid)).mean((2, 3))
            logits.append(self.global_head(pooled).squeeze(-1))
        return tuple(logits)


__all__ = ["LatentActionTokenizerDiscriminator"]
