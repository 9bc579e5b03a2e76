# SPDX-License-Identifier: Apache-2.0
"""Executes the examples in their order, each on what the one before has made. `tests/hub` executes the one of the Hub."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
from cyclemimic.data import LatentLabels, open_source
from cyclemimic.evaluation.environments.metaworld import MetaworldEnvironment, SimulatorError
from cyclemimic.evaluation.policy import ChunkPolicy

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
STAGES = ["01_train_tokenizer", "02_label_videos", "03_pretrain_policy", "04_finetune_policy", "05_rollout"]
STAGES += ["06_evaluate_tokenizer", "07_publish", "08_serve"]
FLAGS = {
    "01_train_tokenizer": "--data {data} --max_steps 2 --interval_s 0.3",
    "02_label_videos": "--data {data}",
    "03_pretrain_policy": "--data {data} --max_steps 2 --image_size 32",
    "04_finetune_policy": "--data {data} --max_steps 2 --demonstrations 2",
    "05_rollout": "--tasks reach-v3 --episodes 1",
    "06_evaluate_tokenizer": "--data {data} --max_pairs 24",
    "08_serve": "--data {data}",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Folder in which the examples run; their defaults are relative to it."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture
def run_example(workspace, square_data, monkeypatch) -> Callable[..., None]:
    """Runs an example as a script, in this process: five interpreters would take longer than five trainings."""

    def run(stage: str, *flags: str) -> None:
        monkeypatch.chdir(workspace)
        monkeypatch.setattr(sys, "argv", [f"{stage}.py", *FLAGS[stage].format(data=square_data).split(), *flags])
        runpy.run_path(str(EXAMPLES / f"{stage}.py"), run_name="__main__")

    return run


def test_every_example_is_run():
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == STAGES


def test_pipeline(run_example, workspace, capsys):
    for stage in STAGES[:4]:
        run_example(stage)
    assert "44 labels; frame 0 of squares, episode 0: [" in capsys.readouterr().out
    policy = CycleMimicForActionPrediction.from_pretrained(workspace / "outputs" / "policy")
    assert (policy.config.chunk_size, policy.config.action_dim) == (3, 4)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("tokenizer", "A latent action tokenizer (CycleMimic)"),
        ("labels", "Latent actions of 44 pairs of frames"),
        ("pretrained", "It does not act yet."),
        ("policy", "fine-tuned on demonstrations to act"),
    ],
)
def test_what_is_made_has_a_card(workspace, folder, words):
    needs(workspace / "outputs" / folder)
    card = (workspace / "outputs" / folder / "README.md").read_text(encoding="utf-8")
    assert f"# {folder}" in card and words in card and "| squares | 100.00% |" in card
    assert str(workspace) not in card
    made_by = "Latent actions: labels (licence unknown), made by the tokenizer tokenizer at "
    assert (made_by in card) == (folder in ("pretrained", "policy"))


def needs(made: Path) -> None:
    """Skips a test where it runs without test_pipeline, or after it failed."""
    if not made.exists():
        pytest.skip(f"needs the {made.name} of test_pipeline")


def test_rollout(run_example, workspace, capsys):
    needs(workspace / "outputs" / "policy")
    try:
        MetaworldEnvironment("reach-v3").close()
    except SimulatorError as error:
        pytest.skip(str(error))
    run_example("05_rollout")
    assert "mean: " in capsys.readouterr().out


def test_evaluation(run_example, workspace, capsys):
    needs(workspace / "outputs" / "tokenizer")
    run_example("06_evaluate_tokenizer")
    assert "words, cycle accuracy " in capsys.readouterr().out.splitlines()[0]
    assert (workspace / "outputs" / "quality" / "quality.json").is_file()


@pytest.mark.parametrize("stage", ["02_label_videos", "06_evaluate_tokenizer"])
def test_pairs_are_as_far_apart_as_in_the_tokenizers_training(run_example, workspace, tmp_path, stage):
    needs(workspace / "outputs" / "tokenizer")
    tokenizer = shutil.copytree(workspace / "outputs" / "tokenizer", tmp_path / "tokenizer")
    config = json.loads((tokenizer / "config.json").read_text())
    (tokenizer / "config.json").write_text(json.dumps(config | {"interval_s": 0.4, "min_interval_s": 0.2}))
    made = tmp_path / "made"
    run_example(stage, "--tokenizer", str(tokenizer), "--output", str(made))
    if stage == "02_label_videos":
        settings = LatentLabels.from_folder(made).metadata
    else:
        settings = json.loads((made / "quality.json").read_text())["settings"]
    assert (settings["interval_s"], settings["min_interval_s"]) == (0.4, 0.2)


def test_serving(run_example, workspace, square_data, capsys):
    needs(workspace / "outputs" / "policy")
    pytest.importorskip("msgpack")
    pytest.importorskip("websockets")
    run_example("08_serve")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"frame {index}, 'go right'" for index in range(3)]
    # Half of a chunk of three is one action: the policy looks at every frame.
    model = CycleMimicForActionPrediction.from_pretrained(workspace / "outputs" / "policy")
    policy = ChunkPolicy(model, CycleMimicProcessor.from_pretrained(workspace / "outputs" / "policy"))
    frames = list(open_source(square_data)[0].iter_frames(range(3)))
    actions = [json.loads(line.split(": ")[1]) for line in lines]
    np.testing.assert_allclose(actions, policy.predict(frames, ["go right"] * 3)[:, 0], rtol=0, atol=0.011)
