# SPDX-License-Identifier: Apache-2.0
"""The encoder E of the latent action tokenizer: features of two frames to the embedding of what changed (paper §3)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoModel

from .configuration_latent_action_tokenizer import LatentActionTokenizerConfig
from .layers_latent_action_tokenizer import (
    LatentActionTokenizerEmbeddingNorm,
    LatentActionTokenizerPatchEmbeddings,
    LatentActionTokenizerSpatioTemporalLayer,
    Memory,
)
from .precision_latent_action_tokenizer import unit_length


class LatentActionTokenizerVisionFeatures(nn.Module):
    """
    Patch features of single frames, by the vision model of the configuration or by a plain patch embedding. They depend
    on one frame only, so each frame's are computed once however many pairs it stands in.
    """

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.vision_model = None
        if config.vision_config is None:
            self.patch_embeddings = LatentActionTokenizerPatchEmbeddings(config)
            return
        # Of the rest's type: a loaded vision model's configuration names the type of its own weights.
        try:
            self.vision_model = AutoModel.from_config(config.vision_config, dtype=torch.get_default_dtype())
        except ValueError as error:  # which lists all types that there are
            kind = config.vision_config.model_type
            raise ValueError(f"`vision_config` must be of a model that AutoModel makes, got {kind}.") from error
        if self.vision_model.main_input_name != "pixel_values":
            raise ValueError(
                "`vision_config` must be a model of single images, which takes `pixel_values`, "
                f"got {config.vision_config.model_type}, which takes `{self.vision_model.main_input_name}`."
            )
        self._check_image_size(config.image_size)
        vision_grid = config.image_size // config.vision_config.patch_size
        self.num_patches = vision_grid**2
        self.projection = nn.Linear(config.vision_config.hidden_size, config.hidden_size)
        self.position_embeddings = nn.Parameter(torch.zeros(self.num_patches, config.hidden_size))
        self.frozen = config.freeze_vision
        if self.frozen:
            self.vision_model.requires_grad_(False).eval()

    def _check_image_size(self, image_size: int) -> None:
        # A model that brings its positions to other sizes by itself has no such argument.
        asked = inspect.signature(type(self.vision_model).forward).parameters.get("interpolate_pos_encoding")
        own = getattr(self.vision_model.config, "image_size", None)
        if (
            asked is not None
            and not asked.default
            and own not in (None, image_size, [image_size] * 2, (image_size,) * 2)
        ):
            raise ValueError(
                f"`vision_config` must have the tokenizer's `image_size`, {image_size}, as {self.vision_model.config.model_type} has "
                f"positions for one size alone, got {own}."
            )

    def train(self, mode: bool = True) -> LatentActionTokenizerVisionFeatures:
        super().train(mode)
        if self.vision_model is not None and self.frozen:
            # Dropout or running statistics would change what is to stay as it was loaded. `from_pretrained`, which ends
            # here too, puts parameters of its own in place of those that were frozen.
            self.vision_model.requires_grad_(False).eval()
        return self

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`).

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_patches, hidden_size)`.

        Raises:
            ValueError: the vision model yields no patch tokens, or fewer than the frame has patches.
        """
        if self.vision_model is None:
            return self.patch_embeddings(pixel_values)
        features = self.vision_model(pixel_values=pixel_values).last_hidden_state
        if features.ndim != 3 or len(features) != len(pixel_values) or features.shape[1] < self.num_patches:
            raise ValueError(
                f"`vision_config` must be a model with at least {self.num_patches} patch tokens for this image size, "
                f"got features of shape {tuple(features.shape)}."
            )
        # Class and register tokens stand first.
        return self.projection(features[:, -self.num_patches :]) + self.position_embeddings


class LatentActionTokenizerEncoder(nn.Module):
    """E without its vision model: two frames' features → `z^e` (paper §3)."""

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__()
        self.num_latent_tokens = config.num_latent_tokens
        self.normalize = config.normalize_codebook
        self.latent_tokens = nn.Parameter(torch.zeros(config.num_latent_tokens, config.hidden_size))
        self.frame_embeddings = nn.Parameter(torch.zeros(2, 1, config.hidden_size))
        self.layers = nn.ModuleList(
            LatentActionTokenizerSpatioTemporalLayer(config) for _ in range(config.num_encoder_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, config.codebook_dim)
        self.embedding_norm = LatentActionTokenizerEmbeddingNorm(config) if config.standardize_embeddings else None

    def read_current(self, features: torch.Tensor) -> list[Memory]:
        """
        Args:
            features (`torch.FloatTensor` of shape `(batch_size, num_patches, hidden_size)`): of the current frames.

        Returns:
            `list[Memory]`: What each layer remembers of them.
        """
        return self._read(features, 0, [None] * len(self.layers))[1]

    def forward(
        self, current: list[Memory], future_features: torch.Tensor, is_generated: bool = False
    ) -> torch.Tensor:
        """
        Args:
            current (`list[Memory]`): Of the current frames, by `read_current`.
            future_features (`torch.FloatTensor` of shape `(batch_size, num_patches, hidden_size)`).
            is_generated (`bool`): Whether D made the future frames. Their embeddings are measured against the
                statistics of real pairs, in training as in evaluation: by their own, a decoder that gives all frames
                one motion would go unseen.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_latent_tokens, codebook_dim)`: `z^e`.
        """
        hidden_states, _ = self._read(future_features, 1, current)
        embeddings = self.projection(self.norm(hidden_states))
        if self.embedding_norm is not None:
            # Without gradients somebody looks, who is to see what evaluation sees, and to change nothing.
            is_learning = self.training and torch.is_grad_enabled()
            embeddings = self.embedding_norm(embeddings, by_batch=is_learning and not is_generated)
        return unit_length(embeddings) if self.normalize else embeddings

    def _read(
        self, features: torch.Tensor, frame: int, past: Sequence[Memory | None]
    ) -> tuple[torch.Tensor, list[Memory]]:
        """States of the latent tokens after the last layer, and each layer's memory of the frame."""
        latents = self.latent_tokens.expand(features.shape[0], -1, -1).to(features.dtype)
        hidden_states = torch.cat((latents, features), dim=1) + self.frame_embeddings[frame]
        memories = []
        for layer, seen in zip(self.layers, past, strict=True):
            num_read = self.num_latent_tokens if layer is self.layers[-1] else None
            hidden_states, *memory = layer(hidden_states, *(seen or (None, None)), num_read)
            memories.append(tuple(memory))
        return hidden_states, memories


__all__ = ["LatentActionTokenizerEncoder", "LatentActionTokenizerVisionFeatures"]
