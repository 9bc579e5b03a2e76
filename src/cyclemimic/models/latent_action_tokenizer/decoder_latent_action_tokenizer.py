# SPDX-License-Identifier: Apache-2.0
"""The decoder D of the latent action tokenizer: current frame and action to future frame (paper §3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_latent_action_tokenizer import LatentActionTokenizerConfig
from .layers_latent_action_tokenizer import (
    LatentActionTokenizerPatchEmbeddings,
    LatentActionTokenizerSpatialLayer,
    unpatchify,
)

# Logit by which a pixel at first stays where it is: nineteen times as likely as any one motion.
FIRST_STILL_LOGIT = 3.0


class LatentActionTokenizerTransport(nn.Module):
    """
    Moves the frame as the action says, whatever the frame shows (a departure from the paper, after Finn et al. 2016,
    "Unsupervised Learning for Physical Interaction through Video Prediction"): the action alone decides on a few motions,
    the frame on which of them each pixel follows. An action then moves every body alike, also one that was never seen to
    move so; a decoder that draws the future in pixels has to learn that for each body.
    """

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.num_motions = config.num_motions
        self.patch_size = config.patch_size
        self.steps = config.motion_steps
        self.stride = config.motion_stride
        self.kernel_size = 2 * self.steps + 1
        action_size = config.num_latent_tokens * config.codebook_dim
        self.kernels = nn.Sequential(
            nn.Linear(action_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, self.num_motions * self.kernel_size**2),
        )
        self.mask_head = nn.Linear(config.hidden_size, (1 + self.num_motions) * config.patch_size**2)

    def first_mask_bias(self) -> torch.Tensor:
        """Bias of `mask_head` before training, by which most of a pixel stays."""
        bias = torch.zeros_like(self.mask_head.bias).view(1 + self.num_motions, -1)
        bias[0] = FIRST_STILL_LOGIT
        return bias.flatten()

    def forward(
        self, pixel_values: torch.Tensor, quantized: torch.Tensor, hidden_states: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): the current frame.
            quantized (`torch.FloatTensor` of shape `(batch_size, num_latent_tokens, codebook_dim)`): the action.
            hidden_states (`torch.FloatTensor` of shape `(batch_size, num_patches, hidden_size)`): the decoder's patches.

        Returns:
            `torch.FloatTensor` of the shape of `pixel_values`: each pixel a mixture of the frame as it is and as each
            motion leaves it.
        """
        masks = unpatchify(self.mask_head(hidden_states), self.patch_size, pixel_values.shape[-1]).softmax(1)
        still, moving = masks[:, None, 0], masks[:, None, 1:]
        return still * pixel_values + (moving * self._moved(pixel_values, quantized)).sum(2)

    def _moved(self, pixel_values: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        """The frame after each motion: `(batch_size, channels, num_motions, height, width)`."""
        batch_size, channels, height, width = pixel_values.shape
        shape = batch_size, 1, self.num_motions, self.kernel_size, self.kernel_size
        # Probabilities of where a pixel comes from.
        kernels = self.kernels(quantized.flatten(1)).view(batch_size, self.num_motions, -1).softmax(-1).view(shape)
        kernels = kernels.expand(-1, channels, -1, -1, -1).flatten(0, 2).unsqueeze(1)
        frames = F.pad(pixel_values, (self.steps * self.stride,) * 4, mode="replicate").flatten(0, 1)
        moved = F.conv2d(frames[None], kernels.to(frames.dtype), groups=batch_size * channels, dilation=self.stride)
        return moved.view(batch_size, channels, self.num_motions, height, width)


class LatentActionTokenizerDecoder(nn.Module):
    """D: current frame and action → future frame, in pixels (paper §3)."""

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.residual = config.residual_decoder
        self.num_latent_tokens = config.num_latent_tokens
        self.patch_size = config.patch_size
        self.patch_embeddings = LatentActionTokenizerPatchEmbeddings(config)
        self.action_projection = nn.Linear(config.codebook_dim, config.hidden_size)
        self.action_position_embeddings = nn.Parameter(torch.zeros(config.num_latent_tokens, config.hidden_size))
        self.layers = nn.ModuleList(
            LatentActionTokenizerSpatialLayer(config) for _ in range(config.num_decoder_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.num_channels * config.patch_size**2)
        self.transport = LatentActionTokenizerTransport(config) if config.num_motions > 0 else None

    def forward(self, pixel_values: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): the current frame.
            quantized (`torch.FloatTensor` of shape `(batch_size, num_latent_tokens, codebook_dim)`): the action.

        Returns:
            `torch.FloatTensor` of the shape of `pixel_values`: the future frame.
        """
        actions = self.action_projection(quantized) + self.action_position_embeddings
        hidden_states = torch.cat((actions, self.patch_embeddings(pixel_values)), dim=1)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        hidden_states = self.norm(hidden_states[:, self.num_latent_tokens :])
        output = unpatchify(self.head(hidden_states), self.patch_size, pixel_values.shape[-1])
        if self.transport is not None:
            pixel_values = self.transport(pixel_values, quantized, hidden_states)
        return pixel_values + output if self.residual else output


__all__ = ["LatentActionTokenizerDecoder", "LatentActionTokenizerTransport"]
