# SPDX-License-Identifier: Apache-2.0
"""Turns checkpoints of TRI-ML's Prismatic and of OpenVLA, whose vision towers are timm's, into Prismatic checkpoints."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, LlavaProcessor, PreTrainedConfig

from .configuration_prismatic import PrismaticConfig, config_from_dict
from .modeling_prismatic import PrismaticForConditionalGeneration
from .processing_prismatic import make_prismatic_processor
from .stored_tensors_prismatic import StoredTensor, open_safetensors, open_sharded, open_torch, read_json, shorten
from .timm_names_prismatic import TEXT, apply_rules, make_rules, make_weight

# Prismatic's name of a pair of towers -> arguments of `PrismaticConfig`, whose defaults are this pair.
VISION_BACKBONES: dict[str, dict[str, Any]] = {"dinosiglip-vit-so-224px": {}}
MAX_SHARD_SIZE = "4GB"


@dataclass(frozen=True)
class PrismaticConversion:
    """A checkpoint that has been found complete, and can be written.

    Args:
        config ([`PrismaticConfig`]).
        processor ([`LlavaProcessor`]).
        sources (`dict[str, tuple[StoredTensor, int | None]]`): Weight of the model -> the tensor it is made of, and
            which third of it.
        left_out (`list[str]`): Parts of the checkpoint that no output of the model depends on.
    """

    config: PrismaticConfig
    processor: LlavaProcessor
    sources: dict[str, tuple[StoredTensor, int | None]]
    left_out: list[str]

    @property
    def dtype(self) -> torch.dtype:
        """The projector's, which all weights get."""
        return self.sources["model.projector.fc1.bias"][0].load().dtype

    @property
    def num_bytes(self) -> int:
        """Of the weights, as they are written."""
        shapes = _expected_shapes(self.config).values()
        return sum(math.prod(shape) for shape in shapes) * self.dtype.itemsize

    def save(self, folder: str | Path) -> None:
        """Write model and processor. Weights stay in their files until the shard that they go into is written."""
        dtype, num_patches = self.dtype, self.config.num_image_tokens
        weights = {
            name: make_weight(name, stored.load(), third, num_patches).to(dtype)
            for name, (stored, third) in self.sources.items()
        }
        model = _make_empty_model(self.config)
        model.load_state_dict(weights, assign=True)
        model.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
        self.processor.save_pretrained(folder)


def plan_conversion(
    checkpoint: str | Path,
    language_model: str | None = None,
    dino: str | Path | None = None,
    siglip: str | Path | None = None,
) -> PrismaticConversion:
    """
    Read names and shapes of a checkpoint's tensors, and find for every weight of the model what it is made of.

    Args:
        checkpoint (`str` or `Path`): Folder of an OpenVLA checkpoint (`config.json`, safetensors, tokenizer), folder
            of a TRI-ML run (`config.json`, `checkpoints/latest-checkpoint.pt`), or a `.pt` file in such a run.
        language_model (`str`, *optional*): Folder or Hub id of the language model that a TRI-ML run started with,
            for its config and its tokenizer. An OpenVLA checkpoint has both.
        dino, siglip (`str` or `Path`, *optional*): timm's safetensors files of the towers, which a TRI-ML run that did
            not train them leaves out.

    Raises:
        ValueError: a file missing or not what it should be, another pair of towers, a tensor that no part of the model
            is made of, a weight that nothing is made into, or one of another shape.
    """
    checkpoint = Path(checkpoint)
    run = checkpoint.parent.parent if checkpoint.is_file() else checkpoint
    settings = read_json(run / "config.json")
    is_run = isinstance(settings.get("model"), dict)
    settings = settings["model"] if is_run else settings
    arguments = _read_vision_arguments(settings, run)
    if is_run:
        file = checkpoint if checkpoint.is_file() else run / "checkpoints" / "latest-checkpoint.pt"
        tensors = open_torch(file)
    else:
        tensors = open_sharded(run)
    for path, part in ((dino, "dino_featurizer"), (siglip, "siglip_featurizer")):
        tensors += open_safetensors(Path(path), f"vision_backbone.{part}.") if path is not None else []
    text_config = _read_text_config(settings, run, is_run, language_model, tensors)
    tokenizer = _read_tokenizer(language_model or str(run), text_config)
    processor = make_prismatic_processor(tokenizer, PrismaticConfig(**arguments).vision_config)
    if len(tokenizer) > text_config.vocab_size:
        raise ValueError(
            f"{checkpoint}: the embeddings have {text_config.vocab_size} rows, but the tokenizer of "
            f"{language_model or run} has {len(tokenizer)} tokens with <PAD> and <image>; give the language model that "
            "the checkpoint started with as `language_model`."
        )
    text_config.pad_token_id = tokenizer.pad_token_id
    config = PrismaticConfig(text_config=text_config, image_token_id=processor.image_token_id, **arguments)
    sources, left_out = _match(tensors, config, str(checkpoint))
    return PrismaticConversion(config, processor, sources, left_out)


def _match(
    tensors: list[StoredTensor], config: PrismaticConfig, where: str
) -> tuple[dict[str, tuple[StoredTensor, int | None]], list[str]]:
    """What every weight is made of, and which parts are left out; every tensor and every weight is accounted for."""
    shapes, rules = _expected_shapes(config), make_rules(config)
    sources: dict[str, tuple[StoredTensor, int | None]] = {}
    left_out: dict[str, None] = {}
    unknown, repeated = [], []
    for stored in tensors:
        match, target = apply_rules(rules, stored.name)
        if match is not None and target is None:
            left_out[re.sub(r"\.\d+\.", ".*.", stored.name[: match.end(1)])] = None
            continue
        targets = [target.replace("{}", part) for part in "qkv"] if target and "{}" in target else [target]
        if not shapes.keys() >= set(targets):
            unknown.append(stored.name)
            continue
        repeated += [stored.name] if sources.keys() & set(targets) else []
        sources.update({name: (stored, third if len(targets) > 1 else None) for third, name in enumerate(targets)})
    if unknown:
        raise ValueError(f"{where}: no part of the model is made of {shorten(unknown)}.")
    if repeated:
        raise ValueError(f"{where}: some weights are there twice, {shorten(repeated)}; leave one of them out.")
    if missing := [name for name in shapes if name not in sources]:
        hint = ""
        if not any("vision_tower" in name for name in sources):
            hint = "; give timm's files of the towers, which were not trained, as `dino` and `siglip`"
        raise ValueError(f"{where}: nothing is there to make {shorten(missing)} of{hint}.")
    for name, (stored, third) in sources.items():
        empty = torch.empty(stored.shape, device="meta")
        shape = tuple(make_weight(name, empty, third, config.num_image_tokens).shape)
        if shape != shapes[name]:
            raise ValueError(
                f"{where}: {stored.name} of shape {stored.shape} does not make {name} of shape {shapes[name]}."
            )
    return sources, list(left_out)


def _make_empty_model(config: PrismaticConfig) -> PrismaticForConditionalGeneration:
    with torch.device("meta"):
        return PrismaticForConditionalGeneration(config)


def _expected_shapes(config: PrismaticConfig) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in _make_empty_model(config).state_dict().items()}


def _read_vision_arguments(settings: Mapping[str, Any], run: Path) -> dict[str, Any]:
    for name, allowed in (
        ("vision_backbone_id", sorted(VISION_BACKBONES)),
        # The others pad or crop, each tower in its own way.
        ("image_resize_strategy", ["resize-naive"]),
    ):
        if settings.get(name) not in allowed:
            raise ValueError(f"{run / 'config.json'}: `{name}` must be one of {allowed}, got {settings.get(name)!r}.")
    return VISION_BACKBONES[settings["vision_backbone_id"]]


def _read_text_config(
    settings: Mapping[str, Any], run: Path, is_run: bool, language_model: str | None, tensors: list[StoredTensor]
) -> PreTrainedConfig:
    """The language model's config, with the vocabulary that the weights have."""
    if is_run:
        if language_model is None:
            raise ValueError(
                f"`language_model` must be given with a TRI-ML run, which has neither its config nor its tokenizer: a "
                f"folder or Hub id of {settings.get('llm_backbone_id', 'the one it started with')}."
            )
        try:
            config = AutoConfig.from_pretrained(language_model, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise _not_a_language_model(language_model, error) from error
    else:
        try:
            config = config_from_dict("text_config", settings.get("text_config") or {})
        except ValueError as error:
            raise ValueError(f"{run / 'config.json'}: {error}") from error
    embeddings = [stored for stored in tensors if re.fullmatch(TEXT + r"model\.embed_tokens\.weight", stored.name)]
    if embeddings and embeddings[0].shape:
        config.vocab_size = embeddings[0].shape[0]
    return config


def _read_tokenizer(folder: str, text_config: PreTrainedConfig) -> Any:
    try:
        # With the config, the folder's own, of a model type that transformers does not know, is not asked for.
        return AutoTokenizer.from_pretrained(folder, config=text_config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _not_a_language_model(folder, error) from error


def _not_a_language_model(name: str, error: Exception) -> ValueError:
    reason = str(error).strip().splitlines()[0]
    return ValueError(f"`language_model` must be a folder or a Hub id with config and tokenizer, got {name}: {reason}")


__all__ = ["PrismaticConversion", "plan_conversion"]
