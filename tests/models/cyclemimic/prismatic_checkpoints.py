# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints of a small Prismatic as OpenVLA and TRI-ML write them, with timm's names of the towers' weights.

`timm_towers.json` was made once with timm: for towers that are its `vit_large_patch14_reg4_dinov2` and
`vit_so400m_patch14_siglip_224` but for `img_size=28`, `depth=3`, `num_heads=2` and `embed_dim` 32 and 48, and whose
weights are those of `make_tower`, it holds the output of `get_intermediate_layers(image, n={1})` in double precision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM

TIMM = json.loads((Path(__file__).parent / "timm_towers.json").read_text(encoding="utf-8"))
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
VISION = {
    "vision_config": {
        "model_type": "dinov2_with_registers",
        "image_size": 28,
        "patch_size": 14,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    },
    "fused_vision_config": {
        "model_type": "siglip_vision_model",
        "image_size": 28,
        "patch_size": 14,
        "hidden_size": 48,
        "intermediate_size": 179,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "vision_use_head": False,
    },
}
SETTINGS = {"vision_backbone_id": "tiny", "image_resize_strategy": "resize-naive"}
# What the language model was trained with, padded.
VOCAB_SIZE = 320


def random_array(seed: int, shape: list[int]) -> torch.Tensor:
    # `RandomState` gives the same numbers in every version of NumPy.
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def make_tower(part: str) -> dict[str, torch.Tensor]:
    """Double precision weights of the tower `"dino"` or `"siglip"`, by timm's names."""
    random = np.random.RandomState(TIMM["towers"][part]["seed"])
    shapes = TIMM["towers"][part]["shapes"].items()
    return {name: torch.from_numpy(0.2 * random.standard_normal(shape)) for name, shape in shapes}


def make_projector() -> list[torch.Tensor]:
    """Weight, bias, weight … of its three layers."""
    shapes = [(320, 80), (320,), (32, 320), (32,), (32, 32), (32,)]
    return [0.1 * random_array(10 + index, list(shape)) for index, shape in enumerate(shapes)]


def make_language_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**TEXT, vocab_size=VOCAB_SIZE)).double().eval()


def save_tokenizer(folder: Path) -> None:
    """A tokenizer without padding and image tokens, as LLaMA's."""
    tokenizer = GPT2Tokenizer(vocab={}, merges=[]).train_new_from_iterator(
        ["open the drawer"], vocab_size=300, show_progress=False
    )
    tokenizer.save_pretrained(folder)


def openvla_weights() -> dict[str, torch.Tensor]:
    weights = {}
    for part, name in (("dino", "featurizer"), ("siglip", "fused_featurizer")):
        for key, value in make_tower(part).items():
            # OpenVLA calls timm's layer scale by another name.
            weights[f"vision_backbone.{name}.{key.replace('gamma', 'scale_factor')}"] = value
    keys = [f"projector.fc{layer}.{kind}" for layer in (1, 2, 3) for kind in ("weight", "bias")]
    weights |= dict(zip(keys, make_projector(), strict=True))
    return weights | {f"language_model.{key}": value for key, value in make_language_model().state_dict().items()}


def save_openvla(folder: Path, weights: dict[str, torch.Tensor] | None = None, **changes: Any) -> Path:
    """Two shards with an index, config and tokenizer."""
    weights = openvla_weights() if weights is None else weights
    folder.mkdir(parents=True)
    names = sorted(weights)
    shards = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2],
        "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }
    for file, part in shards.items():
        save_file({name: weights[name].contiguous() for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config = {
        "model_type": "openvla",
        "auto_map": {"AutoConfig": "configuration_prismatic.OpenVLAConfig"},
        "text_config": {"model_type": "llama", **TEXT, "vocab_size": VOCAB_SIZE, "torch_dtype": "float64"},
    }
    (folder / "config.json").write_text(json.dumps(config | SETTINGS | changes), encoding="utf-8")
    save_tokenizer(folder)
    return folder


def run_parts(with_towers: bool) -> dict[str, dict[str, torch.Tensor]]:
    """The parts of a TRI-ML run's weights."""
    projector = dict(zip([f"{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")], make_projector()))
    parts = {
        "projector": {f"projector.{key}": value for key, value in projector.items()},
        "llm_backbone": {f"llm.{key}": value for key, value in make_language_model().state_dict().items()},
        "downsampler": {},
    }
    if with_towers:
        parts["vision_backbone"] = {
            f"{part}_featurizer.{key}": value for part in ("dino", "siglip") for key, value in make_tower(part).items()
        }
    return parts


def save_run(folder: Path, parts: dict[str, dict[str, torch.Tensor]], **changes: Any) -> Path:
    """A TRI-ML run: config and checkpoint. Its language model is saved by `save_language_model`."""
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"model": parts, "optimizer": {"step": torch.ones(1)}}, folder / "checkpoints" / "latest-checkpoint.pt")
    model = {**SETTINGS, "llm_backbone_id": "llama2-7b-pure", **changes}
    (folder / "config.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    return folder


def save_language_model(folder: Path) -> Path:
    """Config and tokenizer of the language model that the run started with, its vocabulary not padded yet."""
    LlamaConfig(**TEXT, vocab_size=300).save_pretrained(folder)
    save_tokenizer(folder)
    return folder
