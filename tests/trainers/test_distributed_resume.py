# SPDX-License-Identifier: Apache-2.0
"""Two processes that were killed go on as if they had not been: every byte of what they go on from is the same."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from . import parity_runs
from .test_checkpointing_trainer import assert_same, contents
from .test_parity import DDP, HAS_DEEPSPEED, free_port, start_rank

SCRIPT = Path(__file__).with_name("resume_runs.py")
STRATEGIES = [DDP, *(["zero2"] if HAS_DEEPSPEED else [])]


def start(initial: Path, folder: Path) -> list[subprocess.Popen[str]]:
    folder.mkdir(exist_ok=True)
    port = free_port()
    arguments = [str(initial), str(folder), *STRATEGIES]
    return [start_rank(rank, port, folder, SCRIPT, arguments) for rank in range(2)]


def finish(ranks: list[subprocess.Popen[str]], folder: Path) -> None:
    try:
        codes = [rank.wait(timeout=600) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert codes == [0, 0], (folder / "rank_0.log").read_text()[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of what was trained in one go, and of what was killed once by every strategy, each in another case."""
    root = tmp_path_factory.mktemp("resume")
    parity_runs.save_initial_models(root)
    whole, parts, random = root / "whole", root / "parts", np.random.default_rng(0)
    finish(start(root, whole), whole)
    for strategy, case in zip(STRATEGIES, ("tokenizer", "finetune")):
        ranks = start(root, parts)
        while not (parts / strategy / case / "checkpoint-1").is_dir() and ranks[0].poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.1))
        for rank in ranks:
            rank.kill()
            rank.wait()
    finish(start(root, parts), parts)
    return whole, parts


@pytest.mark.parametrize("case", ["tokenizer", "finetune"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_processes_go_on_exactly(strategy, case, runs):
    whole, parts = (folder / strategy / case / "checkpoint-4" for folder in runs)
    assert {path.name for path in whole.iterdir()} == {path.name for path in parts.iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in whole.iterdir()}
    assert_same(contents(whole), contents(parts))
    for shard in whole.glob("global_step4/*.pt"):
        assert_same(
            *(torch.load(folder / "global_step4" / shard.name, weights_only=False) for folder in (whole, parts))
        )
    assert not list(runs[1].rglob(".unfinished"))
