# SPDX-License-Identifier: Apache-2.0
"""Transformer layers of the latent action tokenizer: spatial, spatio-temporal, and patches in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_latent_action_tokenizer import LatentActionTokenizerConfig
from .precision_latent_action_tokenizer import in_fp32
from .ranks_latent_action_tokenizer import mean_over_ranks, num_ranks

Memory = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of a frame in one layer, `(batch_size, length, hidden_size)` each."""


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.softmax(query @ key.transpose(2, 3) * scaling, dim=-1)
    return (weights @ value).transpose(1, 2), weights


class LatentActionTokenizerAttention(nn.Module):
    """Multi-head self-attention over the last but one dimension."""

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, num_queries: int | None = None) -> torch.Tensor:
        """What the first `num_queries` positions, by default all, read of all positions."""
        qkv = self.qkv_proj(hidden_states).unflatten(-1, (3, -1, self.head_dim))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, _ = attention(self, query[:, :, :num_queries], key, value, None, dropout=0.0, scaling=self.scaling)
        return self.o_proj(output.flatten(2))


class LatentActionTokenizerTemporalAttention(LatentActionTokenizerAttention):
    """
    The same over time: each position reads itself in its own frame and in the one before. Over two, attention is a logistic
    function, and it is written as one: kernels for sequences would spend their time on places that two do not fill.
    """

    def forward(  # type: ignore[override]  # the other positions are those of the frame before
        self, hidden_states: torch.Tensor, past_key: torch.Tensor | None = None, past_value: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What positions `(batch_size, length, hidden_size)` read, with or without a frame before; their keys and values."""
        query, key, value = self.qkv_proj(hidden_states).chunk(3, dim=-1)
        if past_key is None or past_value is None:
            return self.o_proj(value), key, value
        key_lead, value_lead = (x.unflatten(-1, (-1, self.head_dim)) for x in (key - past_key, value - past_value))
        logits = self.scaling * (query.unflatten(-1, (-1, self.head_dim)) * key_lead).sum(-1, keepdim=True)
        share = torch.sigmoid(logits).to(value.dtype)
        return self.o_proj(past_value + (share * value_lead).flatten(-2)), key, value


class LatentActionTokenizerMLP(nn.Module):
    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class LatentActionTokenizerSpatialLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer: attention inside each frame, then a feed-forward network."""

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.spatial_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.spatial_attention = LatentActionTokenizerAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = LatentActionTokenizerMLP(config)

    def forward(self, hidden_states: torch.Tensor, is_fixed: bool = False) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, length, hidden_size)`).
            is_fixed (`bool`): Whether gradients go to the states alone, and none to the layer.

        Returns:
            `torch.Tensor` of the same shape.
        """
        with fixed(self, is_fixed):
            hidden_states = hidden_states + self.spatial_attention(self.spatial_norm(hidden_states))
            return hidden_states + self.mlp(self.mlp_norm(hidden_states))


class LatentActionTokenizerSpatioTemporalLayer(LatentActionTokenizerSpatialLayer):
    """
    The same, with attention over time between the two: each position sees itself in its own frame and in the one
    before. As frames do not see later ones, what the current frame is remembered by serves any number of futures.
    """

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__(config)
        self.temporal_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.temporal_attention = LatentActionTokenizerTemporalAttention(config)

    def forward(  # type: ignore[override]  # time is remembered
        self,
        hidden_states: torch.Tensor,
        past_key: torch.Tensor | None = None,
        past_value: torch.Tensor | None = None,
        num_read: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, length, hidden_size)`): one frame.
            past_key, past_value (`torch.Tensor`, *optional*): The memory of the frame before. By themselves: gradient
                checkpointing in its reentrant form would cut those of a tuple off.
            num_read (`int`, *optional*, defaults to `length`): How many positions, from the first, are read of the result:
                of the others nothing is computed but what these see.

        Returns:
            States of shape `(batch_size, num_read, hidden_size)`, and this frame's memory of as many positions: key and
            value of its attention over time.
        """
        spatial = hidden_states[:, :num_read] + self.spatial_attention(self.spatial_norm(hidden_states), num_read)
        read, *memory = self.temporal_attention(self.temporal_norm(spatial), past_key, past_value)
        hidden_states = spatial + read
        return hidden_states + self.mlp(self.mlp_norm(hidden_states)), *memory


class LatentActionTokenizerEmbeddingNorm(nn.Module):
    """
    Brings the embeddings of each token to mean 0 and variance 1 a dimension, over the global batch in training, by the
    running statistics otherwise: batch normalisation without scale and shift, whose statistics are alike on all ranks.
    A batch of one pair, as the last of an epoch may be, has none, and is brought there by the running ones.
    """

    running_mean: torch.Tensor
    running_variance: torch.Tensor
    momentum = 0.1
    # Early embeddings differ by little from pair to pair; a larger floor would leave them so.
    eps = 1e-6

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        shape = (config.num_latent_tokens, config.codebook_dim)
        self.register_buffer("running_mean", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("running_variance", torch.ones(shape, dtype=torch.float32))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # In a model of bf16 too: statistics that move by a tenth of what is left would come to rest on their way.
        super()._apply(fn, recurse)
        self.running_mean, self.running_variance = in_fp32(self.running_mean), in_fp32(self.running_variance)
        return self

    def forward(self, embeddings: torch.Tensor, by_batch: bool) -> torch.Tensor:
        """
        Args:
            embeddings (`torch.Tensor` of shape `(batch_size, num_latent_tokens, codebook_dim)`).
            by_batch (`bool`): Standardise by the batch, and move the running statistics towards it.

        Returns:
            `torch.Tensor` of the same shape.
        """
        # Whatever the autocast: the variance is a small difference.
        precise = in_fp32(embeddings)
        mean, variance = self.running_mean, self.running_variance
        if by_batch and num_ranks() * embeddings.shape[0] > 1:
            mean = mean_over_ranks(precise.mean(0))
            variance = mean_over_ranks((precise - mean).square().mean(0))
            self._move_running_statistics(mean, variance)
        return ((precise - mean) * (variance + self.eps).rsqrt()).to(embeddings.dtype)

    @torch.no_grad()
    def _move_running_statistics(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        # A frame that overflowed, as under fp16 happens, must not stay in them after its step has been skipped.
        is_finite = mean.isfinite() & variance.isfinite()
        for running, of_batch in ((self.running_mean, mean), (self.running_variance, variance)):
            # Detached, too: compiled, the gradient would otherwise flow on from wherever these are read in the same step.
            target = torch.where(is_finite, of_batch.detach().to(running), running)
            running.lerp_(target, self.momentum)


class LatentActionTokenizerPatchEmbeddings(nn.Module):
    """Patches of a frame, embedded, with their places: `(batch_size, num_patches, hidden_size)`."""

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.projection = nn.Linear(config.num_channels * config.patch_size**2, config.hidden_size)
        self.position_embeddings = nn.Parameter(torch.zeros(config.grid_size**2, config.hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # A strided convolution without the convolution: on a CPU the plain product is several times faster.
        return self.projection(patchify(pixel_values, self.patch_size)) + self.position_embeddings


@contextmanager
def fixed(module: nn.Module, is_fixed: bool = True) -> Iterator[None]:
    """
    What the module computes inside has no gradients to its parameters. For use in the module's own forward: FSDP puts
    the whole parameters in place of its shards just before it, and a recomputed forward does as the first one did.
    """
    parameters = [parameter for parameter in module.parameters() if is_fixed and parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def patchify(pixel_values: torch.Tensor, patch_size: int) -> torch.Tensor:
    """`(batch_size, channels, height, width)` → `(batch_size, num_patches, channels · patch_size²)`, rows first."""
    patches = pixel_values.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def unpatchify(patches: torch.Tensor, patch_size: int, image_size: int) -> torch.Tensor:
    """The inverse of [`patchify`] for square frames."""
    grid_size = image_size // patch_size
    frames = patches.view(patches.shape[0], grid_size, grid_size, -1, patch_size, patch_size)
    return frames.permute(0, 3, 1, 4, 2, 5).reshape(patches.shape[0], -1, image_size, image_size)
