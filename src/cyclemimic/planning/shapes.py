# SPDX-License-Identifier: Apache-2.0
"""Models without memory: how many parameters they have, and what their layers keep in a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

import torch
from transformers import AutoConfig, GemmaConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen2Config

from cyclemimic.hub.names import load_pinned
from cyclemimic.models.cyclemimic import (
    CycleMimicConfig,
    CycleMimicForActionPrediction,
    CycleMimicProcessor,
    PrismaticConfig,
)
from cyclemimic.models.latent_action_tokenizer.configuration_latent_action_tokenizer import LatentActionTokenizerConfig
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import (
    LatentActionTokenizerForPreTraining,
)
from cyclemimic.planning.memory import ParameterCounts, checkpointed_activation_bytes, layer_activation_bytes
from cyclemimic.trainers.adapters import add_adapter

NUM_TEXT_TOKENS = 32  # of an instruction in its prompt, with the latent action
# The text models of Qwen2.5 0.5B, Gemma 2B and LLaMA-2 7B, each behind Prismatic's two vision models.
TEXT_CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "policy-0.5b": lambda: Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151_936,
        tie_word_embeddings=True,
    ),
    "policy-2b": lambda: GemmaConfig(
        hidden_size=2048,
        intermediate_size=16_384,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
        vocab_size=257_216,
    ),
    "policy-7b": lambda: LlamaConfig(
        hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32_064
    ),
}
PRESETS = ("tokenizer", *TEXT_CONFIGS)


@dataclass(frozen=True)
class LayerStack:
    """Layers alike, and how many tokens of one sample pass through them in a training step."""

    num_layers: int
    num_tokens: int
    hidden_size: int
    intermediate_size: int
    kv_ratio: float = 1.0
    gated: bool = False

    def activation_bytes(self, batch_size: int, checkpointed: bool) -> int:
        """Of a batch."""
        tokens = batch_size * self.num_tokens
        layer = layer_activation_bytes(tokens, self.hidden_size, self.intermediate_size, self.kv_ratio, self.gated)
        if checkpointed:
            return checkpointed_activation_bytes(tokens, self.hidden_size, self.num_layers, layer)
        return self.num_layers * layer


@dataclass(frozen=True)
class ModelShape:
    """A model to plan for."""

    name: str
    counts: ParameterCounts
    stacks: tuple[LayerStack, ...]

    def activation_bytes(self, batch_size: int, checkpointed: bool) -> int:
        """Of a batch on one GPU, the vocabulary's logits left out."""
        return sum(stack.activation_bytes(batch_size, checkpointed) for stack in self.stacks)


def shape_of(model: str, lora_rank: int | None = None) -> ModelShape:
    """
    The shape of a preset, or of a checkpoint's configuration (folder or Hub id).

    Raises:
        ValueError: no preset and no checkpoint, or one of another kind of model; a rank for the tokenizer.
    """
    config = config_of(model)
    if isinstance(config, LatentActionTokenizerConfig):
        if lora_rank is not None:
            raise ValueError(
                f"`lora_rank` must be left out for a tokenizer, which is trained in full, got {lora_rank}."
            )
        return ModelShape(model, _count(LatentActionTokenizerForPreTraining, config), _tokenizer_stacks(config))
    if not isinstance(config, CycleMimicConfig):
        raise ValueError(
            f"`model` must be one of {list(PRESETS)} or a tokenizer's or policy's checkpoint, got {model!r}, "
            f"of a {config.model_type}."
        )
    return ModelShape(model, _count(CycleMimicForActionPrediction, config, lora_rank), _policy_stacks(config))


def config_of(model: str) -> PreTrainedConfig:
    """
    The configuration of a preset, or a checkpoint's (folder or Hub id).

    Raises:
        ValueError: neither is of that name.
    """
    if model == "tokenizer":
        return LatentActionTokenizerConfig()
    if model not in TEXT_CONFIGS:
        try:
            return load_pinned(AutoConfig.from_pretrained, model)
        except OSError as error:
            raise ValueError(f"`model` must be one of {list(PRESETS)}, or a checkpoint, got {model!r}.") from error
    processor = CycleMimicProcessor.from_texts(["plan"], image_size=224, patch_size=14)
    backbone = PrismaticConfig(text_config=TEXT_CONFIGS[model](), image_token_id=processor.image_token_id)
    return processor.make_config(backbone)


def _count(kind: type[PreTrainedModel], config: Any, lora_rank: int | None = None) -> ParameterCounts:
    with torch.device("meta"):
        model: Any = kind(config)
        if lora_rank is not None:
            model = add_adapter(model, lora_rank)
    sizes = {id(weight): (weight.numel(), weight.requires_grad) for weight in model.parameters()}
    trainable = sum(size for size, trains in sizes.values() if trains)
    # What transformers does not split over devices, as layers, is gathered whole.
    whole = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    layers = (
        sum(weight.numel() for weight in part.parameters(recurse=type(part).__name__ in whole))
        for part in model.modules()
    )
    return ParameterCounts(trainable, sum(size for size, _ in sizes.values()) - trainable, max(layers))


def _tokenizer_stacks(config: LatentActionTokenizerConfig) -> tuple[LayerStack, ...]:
    # With AC3 on all frames: E reads three frames a pair, D draws two, of which it may keep one, Ψ judges three.
    share = config.generated_share
    passes = {
        "encoder": 2 + share * (config.cycle_weight > 0),
        "decoder": 1 + share * config.generated_trains_decoder,
    }
    if config.adversarial_weight > 0:
        passes["discriminator"] = 3 * share
    # The configuration fills in the second where nobody gives it.
    width, inner = config.hidden_size, cast(int, config.intermediate_size)
    num_tokens = config.grid_size**2 + config.num_latent_tokens
    stacks = [
        LayerStack(getattr(config, f"num_{part}_layers"), ceil(count * num_tokens), width, inner)
        for part, count in passes.items()
    ]
    # Attention over time: a norm, query, key, value and the result once more.
    stacks.append(LayerStack(config.num_encoder_layers, ceil(passes["encoder"] * num_tokens), width, 0))
    # Through a frozen vision model gradients pass to generated frames alone, if at all.
    passed = passes["encoder"] if config.cycle_trains_decoder else 2
    num_frames = passed - 2 if config.freeze_vision else passes["encoder"]
    vision = cast(PreTrainedConfig | None, config.vision_config)
    if vision is not None and _num_layers(vision) and num_frames > 0:
        stacks.append(_stack_of(vision, ceil(num_frames * (config.image_size // vision.patch_size) ** 2)))
    return tuple(stacks)


def _policy_stacks(config: CycleMimicConfig) -> tuple[LayerStack, ...]:
    backbone, text = config.backbone_config, config.get_text_config()
    num_image_tokens = config.num_image_tokens or 0
    towers = [getattr(backbone, name, None) for name in ("vision_config", "fused_vision_config")]
    parts = [(part, config.num_cameras * _num_patches(part, num_image_tokens)) for part in towers if part is not None]
    parts.append((text, config.num_cameras * num_image_tokens + NUM_TEXT_TOKENS))
    # A vision model without layers, such as the demo's convolutions, keeps next to nothing.
    return tuple(_stack_of(part, tokens) for part, tokens in parts if _num_layers(part))


def _num_patches(vision: PreTrainedConfig, num_image_tokens: int) -> int:
    """Of an image, which many a backbone pools or merges into fewer tokens."""
    if merged := getattr(vision, "spatial_merge_size", None):
        return num_image_tokens * merged**2
    # Of InternVL, height and width.
    image_size, patch_size = (_last(getattr(vision, name, None)) for name in ("image_size", "patch_size"))
    if isinstance(image_size, int) and isinstance(patch_size, int):
        return max(num_image_tokens, (image_size // patch_size) ** 2)
    return num_image_tokens


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, list | tuple) else value


def _num_layers(config: PreTrainedConfig | None) -> int:
    # Qwen-VL's vision models call it depth.
    return getattr(config, "num_hidden_layers", None) or getattr(config, "depth", None) or 0


def _stack_of(config: PreTrainedConfig, num_tokens: int) -> LayerStack:
    kv_heads = getattr(config, "num_key_value_heads", None)
    # Qwen2-VL's vision model calls its width embed_dim, and the language model's hidden_size.
    width = getattr(config, "embed_dim", config.hidden_size)
    inner = getattr(config, "intermediate_size", None) or width * getattr(config, "mlp_ratio", 4)
    # Of Gemma 3n, a layer each.
    inner = max(inner) if isinstance(inner, list | tuple) else inner
    # Of all language models with grouped keys the MLP is gated; vision models have neither.
    return LayerStack(
        _num_layers(config),
        num_tokens,
        width,
        int(inner),
        kv_ratio=1.0 if kv_heads is None else kv_heads / config.num_attention_heads,
        gated=kv_heads is not None,
    )
