# SPDX-License-Identifier: Apache-2.0
"""The YAML files of `examples/`: each is read by what it is written for, and says what the paper does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from cyclemimic.commands import pretrain, train_tokenizer

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CONFIGS = sorted((EXAMPLES / "configs").glob("*.yaml"))
ACCELERATE_CONFIGS = sorted((EXAMPLES / "accelerate_configs").glob("*.yaml"))
VERBS = {"train_tokenizer": train_tokenizer, "pretrain": pretrain}
# Samples a step, learning rate, steps (paper §4).
PAPER = {"pretrain_paper": (16 * 32, 1e-5, 50_000), "pretrain_bridge": (8 * 32, 2e-5, 30_000)}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_training_config(path):
    (verb,) = (verb for name, verb in VERBS.items() if path.stem.startswith(name))
    # A machine without GPU refuses bf16 otherwise.
    *_, training = verb.parse(["--config", str(path), "--use_cpu", "true"], "cyclemimic")
    assert set(yaml.safe_load(path.read_text())) > {"data", "output_dir", "max_steps", "learning_rate"}
    if path.stem in PAPER:
        batch_size, learning_rate, steps = PAPER[path.stem]
        num_gpus = 16 if path.stem == "pretrain_paper" else 8
        assert training.per_device_train_batch_size * training.gradient_accumulation_steps * num_gpus == batch_size
        assert (training.learning_rate, training.max_steps) == (learning_rate, steps)
        assert training.lr_scheduler_type == "constant"


@pytest.mark.parametrize("path", ACCELERATE_CONFIGS, ids=lambda path: path.stem)
def test_accelerate_config(path):
    written = yaml.safe_load(path.read_text())
    loaded = load_config_from_file(str(path))
    assert (loaded.num_processes, loaded.use_cpu, loaded.mixed_precision) == (written["num_processes"], False, "bf16")
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "-m", "cyclemimic.cli", "pretrain"])
    arguments, *_ = _validate_launch_command(arguments)
    launched = (arguments.multi_gpu, bool(arguments.use_deepspeed), bool(arguments.use_fsdp))
    kind = written["distributed_type"]
    assert launched == (kind == "MULTI_GPU", kind == "DEEPSPEED", kind == "FSDP")
    # What accelerate passes on, and what it would pass over in silence.
    for name, value in written.get("deepspeed_config", {}).items() | written.get("fsdp_config", {}).items():
        assert str(getattr(arguments, name)).lower() == str(value).lower(), name


def test_every_strategy_has_a_file():
    assert [path.stem for path in ACCELERATE_CONFIGS] == [
        *("ddp", "fsdp2", "single_gpu", "two_nodes", "zero1", "zero2", "zero3", "zero3_offload")
    ]
