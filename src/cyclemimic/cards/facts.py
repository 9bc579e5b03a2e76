# SPDX-License-Identifier: Apache-2.0
"""What a training was, read off the Trainer that did it."""

from __future__ import annotations

import datetime
import re
import subprocess
from pathlib import Path
from typing import Any

import torch
from peft.utils.constants import DUMMY_TARGET_MODULES
from transformers import Trainer
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from cyclemimic.machine import hardware, versions

# Names of parameters that PEFT adds: adapters, rows of tokens, and what a trained copy stands for.
_OF_PEFT = re.compile(r"\.(lora_|trainable_tokens_|original_module\.)")
_PACKAGES = ("cyclemimic", "torch", "transformers", "accelerate", "peft", "datasets")
# Losses and the like of the last log line; what says how fast it went is told otherwise.
_NOT_LOGGED = {
    "step",
    "epoch",
    "learning_rate",
    "grad_norm",
    "samples_per_second",
    "data_wait",
    "memory_gb",
    "total_flos",
}


def training_facts(trainer: Trainer) -> dict[str, str]:
    """Name → value, for the table of a card."""
    arguments, state = trainer.args, trainer.state
    batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    lines = [line for line in state.log_history if "loss" in line]
    seconds = next((line["train_runtime"] for line in state.log_history if "train_runtime" in line), None)
    # Of a training that was stopped, Trainer knows how long the last part took.
    first = trainer._initial_global_step
    resumed = f", of the steps from {first} on" if first else ""
    # Of these the Trainer keeps members of enumerations, whose text is not their name.
    optimizer, schedule = OptimizerNames(arguments.optim).value, SchedulerType(arguments.lr_scheduler_type).value
    # Whoever launched it may have decided, where the arguments say nothing.
    precision = trainer.accelerator.mixed_precision
    facts = {
        "parameters": f"{_num_parameters(trainer.model) / 1e6:.1f} million",
        **_adapters(trainer.model),
        "steps": f"{state.global_step}, of {batch_size} samples",
        **_pairs(getattr(trainer.model, "config", None)),
        "optimizer": f"{optimizer}, learning rate {arguments.learning_rate:g} ({schedule}), "
        f"weight decay {arguments.weight_decay:g}",
        "precision": "float32" if precision == "no" else precision,
        "hardware": f"{arguments.world_size} process{'es' * (arguments.world_size > 1)} on {hardware()}",
        "time": "–" if seconds is None else f"{seconds / 3600:.2f} h{resumed}",
        "seed": str(arguments.seed),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": _versions(),
    }
    if lines:
        last = {name: value for name, value in lines[-1].items() if name not in _NOT_LOGGED}
        facts[f"last log line (step {lines[-1]['step']})"] = ", ".join(
            f"{name} {value:.4g}" for name, value in last.items()
        )
    return facts


def _pairs(config: Any) -> dict[str, str]:
    """Of a tokenizer that says them, the times between the frames of its pairs."""
    if getattr(config, "interval_s", None) is None:
        return {}
    return {"pairs": f"{config.interval_s:g} s apart, at an episode's end at least {config.min_interval_s:g} s"}


def _num_parameters(model: torch.nn.Module) -> int:
    """Of the model itself: without adapters, and once where PEFT trains a copy."""
    own = (weight for name, weight in model.named_parameters() if not _OF_PEFT.search(name))
    return sum(map(_size, own))


def _adapters(model: Any) -> dict[str, str]:
    """What was trained of a policy, where it is not all."""
    if not hasattr(model, "active_peft_config"):
        return {}
    config = model.active_peft_config
    rest = "the rows of the new tokens" + (" and the action decoder" if config.modules_to_save else "")
    if config.target_modules == DUMMY_TARGET_MODULES:
        return {"trained": f"{rest}; the backbone is frozen"}
    return {"trained": f"adapters of rank {config.r}, alpha {config.lora_alpha}; {rest}"}


def _size(weight: torch.Tensor) -> int:
    # ZeRO-3 leaves next to nothing in a parameter itself.
    return int(getattr(weight, "ds_numel", weight.numel()))


def _versions() -> str:
    named = [f"{name} {version}" for name, version in versions(_PACKAGES).items()]
    commit = _commit()
    return ", ".join(named + ([f"commit {commit}"] if commit else []))


def _commit() -> str | None:
    """The commit of the package's own sources, where they are a clone; `+` where they have been changed since."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--dirty=+"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
