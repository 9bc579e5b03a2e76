# SPDX-License-Identifier: Apache-2.0
"""What decides what a training learns: kept in its checkpoints, so that what goes on from one is the same training."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from cyclemimic.trainers.checkpointing_trainer import SETTINGS_NAME

# Of Trainer's own. Not how many steps: a training may be made longer.
_OF_TRAINER = (
    *("seed", "data_seed", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
    *("optim", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm"),
)
# How a training looks from outside, and what is refused or passed over before it begins.
_NOT_LEARNT_FROM = {"sample_steps", "compile_layers", "leave_out_missing", "skip_broken"}
# Folders and Hub ids: what is moved elsewhere, under its name, is still the same.
_PLACES = {"data", "labels", "tokenizer", "policy", "backbone", "vision_model"}


def settings_of(training: TrainingArguments, *wanted: Any, **others: Any) -> dict[str, Any]:
    """
    Settings by name, as JSON gives them back.

    Args:
        training ([`~transformers.TrainingArguments`]): The verb's own kind of them.
        wanted (dataclasses): The verb's other arguments.
        others: What is to stand for one of them.
    """
    names = {field.name for field in fields(training)} - {field.name for field in fields(TrainingArguments)}
    settings = {name: getattr(training, name) for name in (*_OF_TRAINER, *sorted(names))}
    settings["mixed_precision"] = mixed_precision(training)
    settings["samples_a_step"] = training.world_size * training.train_batch_size * training.gradient_accumulation_steps
    for arguments in wanted:
        settings |= asdict(arguments)
    settings |= others
    kept = {name: _named(name, value) for name, value in settings.items() if name not in _NOT_LEARNT_FROM}
    return json.loads(json.dumps(kept))


def mixed_precision(training: TrainingArguments) -> str:
    """`"bf16"`, `"fp16"` or `"no"`: as the arguments say, or where they say nothing the launcher."""
    asked = "bf16" if training.bf16 else "fp16" if training.fp16 else None
    return asked or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def check_same_settings(checkpoint: str, settings: Mapping[str, Any]) -> None:
    """
    Refuses to go on otherwise than a checkpoint began; one that tells nothing of its settings is taken as it is.

    Args:
        checkpoint (`str`): Its folder.
        settings (`Mapping`): By [`settings_of`].

    Raises:
        ValueError: they differ from the checkpoint's, or these cannot be read.
    """
    path = Path(checkpoint, SETTINGS_NAME)
    if not path.is_file():
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`resume_from_checkpoint` must have its settings as JSON in {path}, got {error}.") from error
    # What either version of the package does not know cannot differ.
    differing = [name for name in settings if name in before and settings[name] != before[name]]
    if differing:
        changes = ", ".join(f"{name} {settings[name]!r} instead of {before[name]!r}" for name in differing)
        raise ValueError(
            f"`resume_from_checkpoint` must be of a training with the same settings, got {checkpoint} with {changes}."
        )


def _named(name: str, value: Any) -> Any:
    if name not in _PLACES or value is None:
        return value
    return [Path(place).name for place in value] if isinstance(value, list) else Path(value).name
