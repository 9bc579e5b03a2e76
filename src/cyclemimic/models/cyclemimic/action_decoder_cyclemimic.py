# SPDX-License-Identifier: Apache-2.0
"""Action decoder of the policy: from the backbone's last layer to a chunk of actions (paper §4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .configuration_cyclemimic import CycleMimicConfig


class CycleMimicCrossAttentionLayer(nn.Module):
    """Pre-norm cross-attention and feed-forward layer."""

    def __init__(self, config: CycleMimicConfig) -> None:
        super().__init__()
        width = config.action_decoder_hidden_size
        self.num_heads = config.action_decoder_num_heads
        self.query_norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, queries: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        queries = queries + self.attend(self.query_norm(queries), self.context_norm(context))
        return queries + self.fc2(F.gelu(self.fc1(self.mlp_norm(queries))))

    def attend(self, queries: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        projected = (self.q_proj(queries), self.k_proj(context), self.v_proj(context))
        query, key, value = (states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for states in projected)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.o_proj(attended.transpose(1, 2).flatten(2))


class CycleMimicActionDecoder(nn.Module):
    """
    Reads the action chunk from the backbone's last layer (paper §4, "an action decoder attends over the VLM's
    last-layer visual and action embeddings and an MLP maps the result"). One query a time step, made of a learned
    vector and the ACT states, which know instruction and latent action, looks where it needs to in the image; learned
    positions make *where* readable from what is attended to. A robot state, where there is one, is one more token to look
    at. The paper leaves the inside open. With `action_decoding` `"latent"`, the states of the latent action tokens take the
    place of the ACT states.
    """

    def __init__(self, config: CycleMimicConfig) -> None:
        super().__init__()
        width, backbone_width = config.action_decoder_hidden_size, config.hidden_size
        self.reads_image = config.action_decoder_context == "image-act"
        if self.reads_image:
            self.visual_norm = nn.LayerNorm(backbone_width)
            self.visual_proj = nn.Linear(backbone_width, width)
        self.act_norm = nn.LayerNorm(backbone_width)
        self.act_proj = nn.Linear(backbone_width, width)
        self.num_cameras = config.num_cameras
        self.num_image_tokens = config.num_image_tokens if self.reads_image else 0
        self.reads_state = config.state_dim is not None
        if self.reads_state:
            self.state_proj = nn.Sequential(nn.Linear(config.state_dim, width), nn.GELU(), nn.Linear(width, width))
        num_act_states = config.num_act_tokens if config.action_decoding == "act" else config.num_latent_tokens
        context_length = self.num_cameras * self.num_image_tokens + num_act_states + self.reads_state
        self.context_positions = nn.Parameter(torch.zeros(context_length, width))
        self.step_queries = nn.Parameter(torch.zeros(config.chunk_size, width))
        self.layers = nn.ModuleList(
            CycleMimicCrossAttentionLayer(config) for _ in range(config.action_decoder_num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.action_dim))
        self.activation = nn.Identity() if config.action_activation == "identity" else ACT2FN[config.action_activation]

    def forward(
        self, visual_states: torch.Tensor | None, act_states: torch.Tensor, robot_state: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            visual_states (`torch.FloatTensor` of shape `(batch_size, num_cameras * num_image_tokens, hidden_size)`,
                *optional*): Camera by camera. Not read where the configuration says so.
            act_states (`torch.FloatTensor` of shape `(batch_size, num_act_tokens, hidden_size)`): Or those of the latent
                action, `(batch_size, num_latent_tokens, hidden_size)`.
            robot_state (`torch.FloatTensor` of shape `(batch_size, state_dim)`, *optional*): Normalised; needed where the
                configuration has a `state_dim`, and not read elsewhere.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, chunk_size, action_dim)`.
        """
        dtype = self.step_queries.dtype  # which may be finer than the backbone's
        act = context = self.act_proj(self.act_norm(act_states.to(dtype)))
        if self.reads_image:
            context = torch.cat([self.visual_proj(self.visual_norm(visual_states.to(dtype))), act], dim=1)
        if self.reads_state:
            context = torch.cat([context, self.state_proj(robot_state.to(dtype))[:, None]], dim=1)
        context = context + self.context_positions
        queries = self.step_queries + act.mean(dim=1, keepdim=True)
        for layer in self.layers:
            queries = layer(queries, context)
        return self.activation(self.head(self.norm(queries)))

    def init_own_parameters(self) -> None:
        """Initialise what is no layer's; an image's positions so that neighbours start alike, and cameras apart."""
        positions = 0.02 * torch.randn(self.context_positions.shape)
        grid = _square_positions(self.num_image_tokens, positions.shape[-1])
        if grid is not None:
            of_images = positions[: self.num_cameras * len(grid)].unflatten(0, (self.num_cameras, -1))
            # As far apart as places in an image are; the first camera starts as an only one does.
            of_images[1:] = torch.randn(self.num_cameras - 1, 1, positions.shape[-1])
            of_images[:1] = 0
            of_images += grid
        init.copy_(self.context_positions, positions)
        # On the scale of the ACT states they are added to: smaller, and the time steps take long to part.
        init.normal_(self.step_queries, std=1.0)


def _square_positions(num_positions: int, width: int) -> torch.Tensor | None:
    """
    `(num_positions, width)`: sines and cosines of row and column, for a square grid; `None` for other counts and widths.
    """
    side = math.isqrt(num_positions)
    if side**2 != num_positions or width % 4:
        return None
    coordinates = (torch.arange(side) + 0.5) / side
    # From half a wave to four waves across the image.
    frequencies = torch.pi * torch.logspace(0, 3, width // 4, base=2)
    angles = coordinates[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


__all__ = ["CycleMimicActionDecoder"]
