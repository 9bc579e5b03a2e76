# SPDX-License-Identifier: Apache-2.0
"""
The tokenizer's Genie objective as one would first write it, of the same weights and with the same loss: attention by its
formula, a strided convolution for patches, both frames through every layer together under a causal mask over time, and the
vision model once a frame, with gradients where it has them to give.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from cyclemimic import LatentActionTokenizerModel
from cyclemimic.models.latent_action_tokenizer.loss_latent_action_tokenizer import reconstruction_loss


def attention(layer: nn.Module, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Of the package's layer, in `(batch_size, length, hidden_size)`."""
    batch_size, length, width = states.shape
    query_weight, key_weight, value_weight = layer.qkv_proj.weight.chunk(3)
    query_bias, key_bias, value_bias = layer.qkv_proj.bias.chunk(3)
    shape = (batch_size, length, -1, layer.head_dim)
    query = F.linear(states, query_weight, query_bias).view(shape).transpose(1, 2)
    key = F.linear(states, key_weight, key_bias).view(shape).transpose(1, 2)
    value = F.linear(states, value_weight, value_bias).view(shape).transpose(1, 2)
    scores = query @ key.transpose(-2, -1) / math.sqrt(layer.head_dim)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    mixed = torch.softmax(scores, dim=-1) @ value
    return layer.o_proj(mixed.transpose(1, 2).reshape(batch_size, length, width))


def patches(embeddings: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    """Patch embeddings by a strided convolution."""
    size, channels = embeddings.patch_size, frames.shape[1]
    kernel = embeddings.projection.weight.view(-1, channels, size, size)
    grid = F.conv2d(frames, kernel, embeddings.projection.bias, stride=size)
    return grid.flatten(2).transpose(1, 2) + embeddings.position_embeddings


def features(model: LatentActionTokenizerModel, frames: torch.Tensor) -> torch.Tensor:
    """Vision features of one frame a sample."""
    vision = model.vision_features
    if vision.vision_model is None:
        return patches(vision.patch_embeddings, frames)
    states = vision.vision_model(pixel_values=frames).last_hidden_state
    return vision.projection(states[:, -vision.num_patches :]) + vision.position_embeddings


def encode(model: LatentActionTokenizerModel, current: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
    """`z^e` of shape `(batch_size, num_latent_tokens, codebook_dim)`."""
    encoder = model.encoder
    batch_size = len(current)
    frames = []
    for index, frame in enumerate((current, future)):
        latents = encoder.latent_tokens.expand(batch_size, -1, -1)
        frames.append(torch.cat([latents, features(model, frame)], dim=1) + encoder.frame_embeddings[index])
    states = torch.stack(frames, dim=1)
    length, width = states.shape[2:]
    past = torch.ones(2, 2, dtype=torch.bool, device=states.device).tril()
    for layer in encoder.layers:
        spatial = states.reshape(-1, length, width)
        states = (spatial + attention(layer.spatial_attention, layer.spatial_norm(spatial))).view_as(states)
        temporal = states.transpose(1, 2).reshape(-1, 2, width)
        temporal = temporal + attention(layer.temporal_attention, layer.temporal_norm(temporal), past)
        states = temporal.view(batch_size, length, 2, width).transpose(1, 2)
        states = states + layer.mlp(layer.mlp_norm(states))
    embeddings = encoder.projection(encoder.norm(states)[:, 1, : encoder.num_latent_tokens])
    if encoder.embedding_norm is not None:
        mean, variance = embeddings.mean(0), embeddings.var(0, unbiased=False)
        embeddings = (embeddings - mean) / torch.sqrt(variance + encoder.embedding_norm.eps)
    return F.normalize(embeddings, dim=-1) if encoder.normalize else embeddings


def decode(model: LatentActionTokenizerModel, current: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """The future frame."""
    decoder = model.decoder
    actions = decoder.action_projection(quantized) + decoder.action_position_embeddings
    states = torch.cat([actions, patches(decoder.patch_embeddings, current)], dim=1)
    for layer in decoder.layers:
        states = states + attention(layer.spatial_attention, layer.spatial_norm(states))
        states = states + layer.mlp(layer.mlp_norm(states))
    drawn = decoder.head(decoder.norm(states))[:, decoder.num_latent_tokens :]
    size, side = decoder.patch_size, current.shape[-1]
    change = F.fold(drawn.transpose(1, 2), (side, side), size, stride=size)
    return current + change if decoder.residual else change


def loss(model: LatentActionTokenizerModel, current: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
    """The loss of a VQ-VAE, `L_VQ-VAE` of paper §3.2."""
    embeddings = encode(model, current, future)
    words = model.quantizer.words
    codes = torch.cdist(embeddings, words.expand(len(embeddings), -1, -1)).argmin(-1)
    chosen = words[codes]
    reconstruction = decode(model, current, embeddings + (chosen - embeddings).detach())
    config, weights = model.config, model.motion_weights(future, current)
    return (
        config.reconstruction_weight * reconstruction_loss(reconstruction, future, weights)
        + config.codebook_weight * F.mse_loss(chosen, embeddings.detach())
        + config.commitment_weight * F.mse_loss(embeddings, chosen.detach())
    )
