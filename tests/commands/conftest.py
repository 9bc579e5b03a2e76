# SPDX-License-Identifier: Apache-2.0
"""The verbs one after the other, at tiny size: what a test needs from earlier verbs is made once a session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cyclemimic import cli
from cyclemimic.data import LeRobotWriter

TINY_TOKENIZER = """
image_size: 32
patch_size: 8
vision_config: null
hidden_size: 32
num_attention_heads: 2
num_encoder_layers: 1
num_decoder_layers: 1
num_discriminator_layers: 1
codebook_dim: 8
"""
TRAINING = "--max_steps 2 --per_device_train_batch_size 4 --use_cpu --save_strategy no --disable_tqdm true".split()
INTERVAL = "--interval_s 0.3 --min_interval_s 0.2".split()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what the session's verbs make."""
    return tmp_path_factory.mktemp("results")


def run_verb(*argv: str | Path) -> int:
    """The exit code of a verb; argparse's own exit is one too."""
    try:
        return cli.main([str(argument) for argument in argv])
    except SystemExit as exit_:
        return exit_.code


@pytest.fixture(scope="session")
def tokenizer_config(results: Path) -> Path:
    path = results / "tokenizer.yaml"
    path.write_text(TINY_TOKENIZER, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(square_data: Path, tokenizer_config: Path, results: Path) -> Path:
    output = results / "tokenizer"
    flags = ["--data", square_data, "--tokenizer_config", tokenizer_config, "--output_dir", output]
    assert run_verb("train-tokenizer", *flags, *TRAINING, *INTERVAL) == 0
    return output


@pytest.fixture(scope="session")
def labels(square_data: Path, tokenizer: Path, results: Path) -> Path:
    output = results / "labels"
    flags = ["--tokenizer", tokenizer, "--data", square_data, "--output", output, "--device", "cpu"]
    assert run_verb("label", *flags, *INTERVAL) == 0
    return output


@pytest.fixture(scope="session")
def pretrained(square_data: Path, labels: Path, results: Path) -> Path:
    output = results / "pretrained"
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1".split()
    flags = ["--data", square_data, "--labels", labels, *tiny, "--output_dir", output]
    assert run_verb("pretrain", *flags, *TRAINING) == 0
    return output


@pytest.fixture(scope="session")
def policy(square_data: Path, labels: Path, pretrained: Path, results: Path) -> Path:
    output = results / "policy"
    flags = ["--policy", pretrained, "--data", square_data, "--labels", labels, "--output_dir", output]
    assert run_verb("finetune", *flags, *TRAINING) == 0
    return output


@pytest.fixture
def verb() -> Callable[..., int]:
    """Runs a verb with strings or paths, and returns its exit code."""
    return run_verb


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a verb that must refuse its input in one line, with exit code 2; returns the line."""

    def run(*argv: str | Path) -> str:
        capsys.readouterr()
        assert run_verb(*argv) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(lines) == 1
        return lines[0]

    return run


@pytest.fixture(scope="session")
def two_camera_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobot data set `squares` of two episodes of 12 frames at 10 fps, seen by the cameras `front` and `wrist`."""
    import pyarrow.parquet as parquet

    random = np.random.default_rng(4)
    roots = []
    for camera in ("front", "wrist"):
        roots.append(tmp_path_factory.mktemp("data") / "squares")
        with LeRobotWriter(roots[-1], 10, "square", list("xyzg"), camera=f"observation.images.{camera}") as writer:
            for _ in range(2):
                frames = random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
                writer.add_episode(frames, random.normal(0, 1, (12, 4)), "go left")
    info = [json.loads((root / "meta" / "info.json").read_text()) for root in roots]
    info[0]["features"] |= info[1]["features"]
    (roots[0] / "meta" / "info.json").write_text(json.dumps(info[0]))
    paths = [next((root / "meta" / "episodes").glob("*/*.parquet")) for root in roots]
    episodes, further = (parquet.read_table(path) for path in paths)
    for name in further.column_names:
        if name.startswith("videos/"):
            episodes = episodes.append_column(name, further[name])
    parquet.write_table(episodes, paths[0])
    shutil.copytree(roots[1] / "videos", roots[0] / "videos", dirs_exist_ok=True)
    return roots[0]
