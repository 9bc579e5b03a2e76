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

# Logit by which a pixel at first stays where it is: seven times as likely as that it goes along with a motion.
FIRST_STILL_LOGIT = 2.0
# Channels that tell the two convolutions, which find outlines to the pixel, what the layers have seen.
_SCENE_CHANNELS, _OUTLINE_CHANNELS = 8, 16


class LatentActionTokenizerTransport(nn.Module):
    """
    Moves parts of the frame (a departure from the paper, after Finn et al. 2016, "Unsupervised Learning for Physical
    Interaction through Video Prediction"): the frame alone decides what can move and what is behind it, the action alone how it
    moves. An action then moves every body alike, also one that was never seen to move so; a decoder that draws the future in
    pixels has to learn that for each body.
    """

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.num_motions = config.num_motions
        self.num_channels = config.num_channels
        self.patch_size = config.patch_size
        self.radius = config.motion_radius
        num_steps = 2 * self.radius + 1
        self.steps = nn.Sequential(
            nn.Linear(config.num_latent_tokens * config.codebook_dim, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, self.num_motions * 2 * num_steps),
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.scene_head = nn.Linear(config.hidden_size, _SCENE_CHANNELS * config.patch_size**2)
        self.outlines = nn.Sequential(
            nn.Conv2d(_SCENE_CHANNELS + config.num_channels, _OUTLINE_CHANNELS, 3, padding=1),
            nn.GELU(),
        )
        self.outline_head = nn.Conv2d(_OUTLINE_CHANNELS, 1 + self.num_motions + config.num_channels, 3, padding=1)

    def first_outline_bias(self) -> torch.Tensor:
        """Bias of `outline_head` before training, by which most of a pixel stays."""
        bias = torch.zeros(1 + self.num_motions + self.num_channels)
        bias[0] = FIRST_STILL_LOGIT
        return bias

    def read(self, pixel_values: torch.Tensor, scene_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): the current frame.
            scene_states (`torch.FloatTensor` of shape `(batch_size, num_patches, hidden_size)`): what the decoder's first layers
                made of the frame alone.

        Returns:
            what can go along with each motion, and how much of it is there, `(batch_size, num_motions, channels + 1, height,
            width)`, and what is behind it, `(batch_size, channels, height, width)`.
        """
        moving, behind = self._parts(pixel_values, scene_states)
        return torch.cat((moving * pixel_values[:, None], moving), dim=2), behind

    def forward(self, parts: torch.Tensor, behind: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        """
        Args:
            parts, behind (`torch.FloatTensor`): as [`~LatentActionTokenizerTransport.read`] returns them.
            quantized (`torch.FloatTensor` of shape `(num_actions, num_latent_tokens, codebook_dim)`): as for the decoder.

        Returns:
            `torch.FloatTensor` of shape `(num_actions, channels, height, width)`: the parts where the motions take them, over
            what is behind them. What goes beyond the border is gone.
        """
        down, right = self._shifts(quantized, parts.shape[-1]).unbind(2)
        content, share = _moved(parts, down, right).split((self.num_channels, 1), dim=1)
        # Where parts meet, they share the pixel.
        crowd = share.clamp_min(1)
        return content / crowd + (1 - share / crowd) * _for_each_action(behind, quantized)

    def _parts(self, pixel_values: torch.Tensor, scene_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of each pixel that go along with each motion, `(batch_size, num_motions, 1, height, width)`, and the frame
        without what goes."""
        scene = unpatchify(self.scene_head(self.norm(scene_states)), self.patch_size, pixel_values.shape[-1])
        # Channels last, in which a processor convolves in half the time.
        seen = torch.cat((scene, pixel_values), dim=1).contiguous(memory_format=torch.channels_last)
        outlines = self.outline_head(self.outlines(seen)).contiguous()
        logits, paint = outlines.split((1 + self.num_motions, self.num_channels), dim=1)
        shares = logits.softmax(1)
        return shares[:, 1:, None], pixel_values + (1 - shares[:, :1]) * paint

    def _shifts(self, quantized: torch.Tensor, size: int) -> torch.Tensor:
        """
        Each motion as two matrices, down and right, from places of before to places of after, of shape `(num_actions,
        num_motions, 2, size, size)`: probabilities of steps of so many pixels, in each direction by themselves.
        """
        steps = self.steps(quantized.flatten(1)).unflatten(-1, (self.num_motions, 2, -1)).softmax(-1)
        steps = F.pad(steps, (size - 1 - self.radius,) * 2)
        return steps.unfold(-1, size, 1).flip(-2)


class LatentActionTokenizerDecoder(nn.Module):
    """
    D: current frame and action → future frame, in pixels (paper §3). With motions, the first half of the layers, rounded up,
    sees the frame alone and tells what can move; the others see the action too, and draw what moving leaves to change.
    """

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
        self.num_scene_layers = 0
        if self.transport is not None:
            # At least one sees the action.
            self.num_scene_layers = config.num_decoder_layers - max(1, config.num_decoder_layers // 2)

    def forward(self, pixel_values: torch.Tensor, quantized: torch.Tensor, num_fixed: int = 0) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): the current frame.
            quantized (`torch.FloatTensor` of shape `(num_actions, num_latent_tokens, codebook_dim)`): the actions, one of each
                frame, and so many more: another of each, or of the first ones, and so on. What depends on the frame alone is
                computed once.
            num_fixed (`int`, *optional*, defaults to 0): The last so many, one of each of the first frames, are applied without
                gradients, and so at a third of the cost.

        Returns:
            `torch.FloatTensor` of shape `(num_actions, channels, height, width)`: the future frames.
        """
        scene = self._read(pixel_values)
        learnt, fixed = quantized.split((quantized.shape[0] - num_fixed, num_fixed))
        futures = self._apply_actions(scene, learnt)
        if num_fixed == 0:
            return futures
        with torch.no_grad():
            fixed_futures = self._apply_actions([seen[:num_fixed].detach() for seen in scene], fixed.detach())
        return torch.cat((futures, fixed_futures))

    def _read(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """What depends on the frames alone: they, their states, and with motions what can move and what is behind it."""
        scene_states = self.patch_embeddings(pixel_values)
        for layer in self.layers[: self.num_scene_layers]:
            scene_states = layer(scene_states)
        parts = () if self.transport is None else self.transport.read(pixel_values, scene_states)
        return [pixel_values, scene_states, *parts]

    def _apply_actions(self, scene: list[torch.Tensor], quantized: torch.Tensor) -> torch.Tensor:
        pixel_values, scene_states, *parts = scene
        actions = self.action_projection(quantized) + self.action_position_embeddings
        hidden_states = torch.cat((actions, _for_each_action(scene_states, quantized)), dim=1)
        for layer in self.layers[self.num_scene_layers :]:
            hidden_states = layer(hidden_states)
        hidden_states = self.norm(hidden_states[:, self.num_latent_tokens :])
        output = unpatchify(self.head(hidden_states), self.patch_size, pixel_values.shape[-1])
        if self.transport is not None:
            return self.transport(*parts, quantized) + output
        return _for_each_action(pixel_values, quantized) + output if self.residual else output


def _moved(parts: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """
    The sum of all parts, each where its motion takes it. Two large products, in which neither a part is copied for each
    action nor a motion for each channel.

    Args:
        parts (`torch.Tensor` of shape `(batch_size, num_motions, channels, size, size)`).
        down, right (`torch.Tensor` of shape `(num_actions, num_motions, size, size)`): From places of before to those of
            after, each frame's first action, their second ones, and so on.

    Returns:
        `torch.Tensor` of shape `(num_actions, channels, size, size)`.
    """
    batch_size, num_motions, channels, size, _ = parts.shape
    times, rest = down.shape[0] // batch_size, down.shape[0] % batch_size
    if rest:
        whole = times * batch_size
        moved = _moved(parts, down[:whole], right[:whole]), _moved(parts[:rest], down[whole:], right[whole:])
        return torch.cat(moved)
    rows = down.unflatten(0, (times, batch_size)).permute(1, 2, 0, 4, 3).reshape(batch_size * num_motions, -1, size)
    moved = rows @ parts.transpose(2, 3).reshape(batch_size * num_motions, size, channels * size)
    moved = moved.view(batch_size, num_motions, times, size, channels, size).permute(2, 0, 4, 3, 1, 5)
    moved = moved.reshape(times * batch_size, channels * size, num_motions * size) @ right.flatten(1, 2)
    return moved.view(-1, channels, size, size)


def _for_each_action(frames: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """What is there once a frame, once an action."""
    times, rest = quantized.shape[0] // frames.shape[0], quantized.shape[0] % frames.shape[0]
    return frames if (times, rest) == (1, 0) else torch.cat((*[frames] * times, frames[:rest]))


__all__ = ["LatentActionTokenizerDecoder", "LatentActionTokenizerTransport"]
