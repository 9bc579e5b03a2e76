# SPDX-License-Identifier: Apache-2.0
"""One process, and two that share the batch by DDP, ZeRO or FSDP, have the same losses and end with the same weights."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from cyclemimic import LatentActionTokenizerForPreTraining
from cyclemimic.trainers.pace import FIGURES

from . import parity_runs
from .parity_runs import CASES, DDP, FSDP, JOINING, NUM_NEW_TOKENS, RESIZED, SINGLE, STEPS, ZERO_STAGES

ENGINES = {DDP: "DistributedDataParallel", FSDP: "FSDPModule"} | {
    name: f"DeepSpeedEngine {stage}" for name, stage in ZERO_STAGES.items()
}
HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
TOLERANCE = 1e-5


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_rank(rank: int, port: int, folder: Path, script: str | Path, arguments: list[str]) -> subprocess.Popen[str]:
    """One of two processes; `folder` gets what it prints."""
    environment = os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # FSDP takes a GPU wherever there is one.
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(script), *arguments]
    with open(folder / f"rank_{rank}.log", "w", encoding="utf-8") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folder of all runs: two processes train with every strategy in turn, and this one alone meanwhile."""
    folder = tmp_path_factory.mktemp("parity")
    parity_runs.save_initial_models(folder)
    port = free_port()
    strategies = [strategy for strategy in ENGINES if HAS_DEEPSPEED or strategy not in ZERO_STAGES]
    arguments = ["2", str(folder), *strategies]
    ranks = [start_rank(rank, port, folder, parity_runs.__file__, arguments) for rank in range(2)]
    try:
        for case in (*CASES, JOINING):
            parity_runs.run(SINGLE, case, 1, folder)
        codes = [rank.wait(timeout=600) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    if codes != [0, 0]:
        pytest.fail("\n".join((folder / f"rank_{rank}.log").read_text(encoding="utf-8")[-4000:] for rank in range(2)))
    return folder


needs_deepspeed = pytest.mark.skipif(not HAS_DEEPSPEED, reason="needs deepspeed: pip install '.[deepspeed]'")


@pytest.mark.parametrize(
    ("strategy", "case"),
    [(strategy, case) for strategy in (DDP, FSDP) for case in (*CASES, JOINING)]
    + [pytest.param(strategy, case, marks=needs_deepspeed) for strategy in ZERO_STAGES for case in CASES],
)
def test_two_processes_train_as_one_does(strategy, case, runs):
    alone, shared = (json.loads((runs / kind / case / "record.json").read_text()) for kind in (SINGLE, strategy))
    assert (shared["engine"], shared["world_size"]) == (ENGINES[strategy], 2)
    assert len(alone["lines"]) == len(shared["lines"]) == STEPS
    for expected, line in zip(alone["lines"], shared["lines"], strict=True):
        for name in FIGURES:
            del line[name], expected[name]
        assert line.pop("grad_norm") == pytest.approx(expected.pop("grad_norm"), rel=1e-4)
        # Of a loss of 10, single precision tells no less than 1e-6 apart; sums in another order come to a few of these.
        assert line == pytest.approx(expected, rel=TOLERANCE / 3, abs=TOLERANCE)
    weights, expected = (weights_of(runs / kind / case / "model") for kind in (strategy, SINGLE))
    assert weights.keys() == expected.keys()
    close = {name: torch.allclose(value, expected[name], rtol=0, atol=TOLERANCE) for name, value in weights.items()}
    assert [name for name, is_close in close.items() if not is_close] == []


def test_what_the_runs_do(runs):
    """Two runs that do nothing would agree as well."""
    lines = json.loads((runs / SINGLE / "tokenizer" / "record.json").read_text())["lines"]
    assert all(line["cycle_loss"] > 0 and line["discriminator_loss"] > 0 for line in lines)
    lines = json.loads((runs / SINGLE / JOINING / "record.json").read_text())["lines"]
    assert [line["discriminator_loss"] > 0 for line in lines] == [False] * 5 + [True] * (STEPS - 5)
    before, after = weights_of(runs / "tokenizer"), weights_of(runs / SINGLE / "tokenizer" / "model")
    moved = {name for name, value in after.items() if name in before and not torch.equal(value, before[name])}
    assert {"buffer.codes", "discriminator.norm.weight", "tokenizer.quantizer.codebook_shift"} < moved
    # Transformers saves this one under the names of older versions, and trainers do not.
    frozen = LatentActionTokenizerForPreTraining.from_pretrained(runs / "tokenizer").tokenizer.vision_features
    for name, value in frozen.vision_model.state_dict().items():
        assert torch.equal(after[f"tokenizer.vision_features.vision_model.{name}"], value), name


@needs_deepspeed
def test_a_vocabulary_grows_in_shards(runs):
    resized = weights_of(runs / "zero3" / RESIZED / "model")
    known = AutoModelForImageTextToText.from_pretrained(runs / "backbone").state_dict()
    for name, value in known.items():
        grown = resized[f"backbone.{name}"]
        assert torch.equal(grown[: len(value)] if value.ndim else grown, value), name
    for name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
        new, (spread, mean) = resized[f"backbone.{name}"][-NUM_NEW_TOKENS:], torch.std_mean(known[name], dim=0)
        assert len(resized[f"backbone.{name}"]) == len(known[name]) + NUM_NEW_TOKENS
        assert ((new - mean).abs() < 0.5 * spread).all() and len(new.unique(dim=0)) == NUM_NEW_TOKENS
