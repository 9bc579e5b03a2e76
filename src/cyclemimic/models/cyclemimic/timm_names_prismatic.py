# SPDX-License-Identifier: Apache-2.0
"""Which weight of Prismatic is made of which tensor of TRI-ML's and OpenVLA's checkpoints, whose towers are timm's."""

from __future__ import annotations

import math
import re

import torch
import torch.nn.functional as F

from .configuration_prismatic import PrismaticConfig

# How the parts are called: by TRI-ML, and by OpenVLA.
DINO = r"vision_backbone\.(?:dino_featurizer|featurizer)\."
SIGLIP = r"vision_backbone\.(?:siglip_featurizer|fused_featurizer)\."
PROJECTOR = r"projector\."
TEXT = r"(?:llm_backbone\.llm|language_model)\."


def make_rules(config: PrismaticConfig) -> list[tuple[str, str | None]]:
    """
    Pattern of a checkpoint's key -> the weight's name, `{}` for one each of q, k and v; `None` where the tensor is
    left out, named up to the first group. The first that matches counts.
    """
    last_dino, last_siglip = (
        tower.num_hidden_layers - 1 for tower in (config.vision_config, config.fused_vision_config)
    )
    dino, siglip = "model.vision_tower.", "model.fused_vision_tower."
    block = r"blocks\.(\d+)\."
    return [
        # Features are read behind the second-to-last block.
        (DINO + rf"(blocks\.{last_dino}|norm)\..+", None),
        (DINO + r"cls_token", dino + "embeddings.cls_token"),
        (DINO + r"reg_token", dino + "embeddings.register_tokens"),
        (DINO + r"pos_embed", dino + "embeddings.position_embeddings"),
        (DINO + r"patch_embed\.proj\.(\w+)", dino + r"embeddings.patch_embeddings.projection.\1"),
        (DINO + block + r"attn\.qkv\.(\w+)", dino + r"encoder.layer.\1.attention.{}_proj.\2"),
        (DINO + block + r"attn\.proj\.(\w+)", dino + r"encoder.layer.\1.attention.o_proj.\2"),
        # timm's own name, and OpenVLA's.
        (DINO + block + r"ls([12])\.(?:gamma|scale_factor)", dino + r"encoder.layer.\1.layer_scale\2.lambda1"),
        (DINO + block + r"(norm[12]|mlp\.fc[12])\.(\w+)", dino + r"encoder.layer.\1.\2.\3"),
        (SIGLIP + rf"(blocks\.{last_siglip}|norm|attn_pool)\..+", None),
        (SIGLIP + r"pos_embed", siglip + "embeddings.position_embedding.weight"),
        (SIGLIP + r"patch_embed\.proj\.(\w+)", siglip + r"embeddings.patch_embedding.\1"),
        (SIGLIP + block + r"attn\.qkv\.(\w+)", siglip + r"encoder.layers.\1.self_attn.{}_proj.\2"),
        (SIGLIP + block + r"attn\.proj\.(\w+)", siglip + r"encoder.layers.\1.self_attn.out_proj.\2"),
        (SIGLIP + block + r"norm([12])\.(\w+)", siglip + r"encoder.layers.\1.layer_norm\2.\3"),
        (SIGLIP + block + r"mlp\.(fc[12])\.(\w+)", siglip + r"encoder.layers.\1.mlp.\2.\3"),
        (PROJECTOR + r"(?:fc1|projector\.0)\.(\w+)", r"model.projector.fc1.\1"),
        (PROJECTOR + r"(?:fc2|projector\.2)\.(\w+)", r"model.projector.fc2.\1"),
        (PROJECTOR + r"(?:fc3|projector\.4)\.(\w+)", r"model.projector.fc3.\1"),
        # Old versions of transformers saved what follows from the config.
        (TEXT + r"(model\..+\.rotary_emb\.inv_freq)", None),
        (TEXT + r"model\.(.+)", r"model.language_model.\1"),
        (TEXT + r"lm_head\.(\w+)", r"lm_head.\1"),
    ]


def apply_rules(rules: list[tuple[str, str | None]], name: str) -> tuple[re.Match[str] | None, str | None]:
    """The match of the first rule that matches, and the weight's name; `None` twice where none does."""
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            return match, None if replacement is None else match.expand(replacement)
    return None, None


def make_weight(name: str, tensor: torch.Tensor, third: int | None, num_patches: int) -> torch.Tensor:
    """The weight called `name`, of a checkpoint's tensor."""
    if third is not None and tensor.ndim > 0:
        # A copy: weights that share memory cannot be saved.
        return tensor.tensor_split(3)[third].clone()
    if name.endswith("embeddings.position_embeddings") and tensor.ndim == 3:
        # timm leaves the class token without a position, transformers adds one: zeros.
        return torch.cat([torch.zeros_like(tensor[:, :1]), _resample(tensor, num_patches)], dim=1)
    if name.endswith("embeddings.position_embedding.weight") and tensor.ndim == 3:
        return _resample(tensor, num_patches).squeeze(0)
    return tensor


def _resample(positions: torch.Tensor, num_patches: int) -> torch.Tensor:
    """Positions `(1, n, width)` of a square grid for one of `num_patches`, as timm does it for another image size."""
    old, new = math.isqrt(positions.shape[1]), math.isqrt(num_patches)
    if old == new or old**2 != positions.shape[1]:
        return positions
    grid = positions.float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True)
    return grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)


__all__ = ["TEXT", "apply_rules", "make_rules", "make_weight"]
