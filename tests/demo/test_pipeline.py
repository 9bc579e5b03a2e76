# SPDX-License-Identifier: Apache-2.0
"""The whole path on a recorded data set that the test makes itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cyclemimic import CycleMimicForActionPrediction, LatentActionTokenizerModel
from cyclemimic.data import DataError, LeRobotWriter
from cyclemimic.demo.pipeline import run_demo
from cyclemimic.demo.settings import DemoConfig, settings_for

NUM_EPISODES = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square that moves as its actions say; two instructions."""
    root = tmp_path_factory.mktemp("data") / "square"
    random = np.random.default_rng(0)
    with LeRobotWriter(root, fps=10, robot_type="square", action_names=["x", "y"]) as writer:
        for episode in range(NUM_EPISODES):
            actions = random.uniform(-1, 1, (16, 2)).astype(np.float32)
            places = np.clip(16 + 4 * actions.cumsum(0), 4, 27).astype(int)
            frames = np.full((16, 32, 32, 3), 40, np.uint8)
            for frame, (x, y) in zip(frames, places, strict=True):
                frame[y - 3 : y + 4, x - 3 : x + 4] = 220
            writer.add_episode(frames, actions, ["move the square", "shift the square"][episode % 2])
    return root


@pytest.fixture(scope="module")
def tiny_settings():
    settings = settings_for(DemoConfig(Path("unused"), data=Path("unused"), quick=True))
    return replace(
        settings,
        interval_s=0.4,
        min_interval_s=0.2,
        policy_image_size=32,
        tokenizer_steps=3,
        pretraining_steps=2,
        finetuning_steps=2,
        batch_size=4,
        tokenizer=settings.tokenizer | {"hidden_size": 16, "num_encoder_layers": 1, "num_decoder_layers": 1},
        backbone={"patch_size": 16, "hidden_size": 32, "num_text_layers": 1},
        action_decoder={
            "action_decoder_hidden_size": 16,
            "action_decoder_num_heads": 2,
            "action_decoder_num_layers": 1,
        },
    )


@pytest.fixture(scope="module")
def output(data: Path, tiny_settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "output"
    run_demo(DemoConfig(folder, data=data, quick=True), tiny_settings)
    return folder


def test_artefacts_load(output: Path) -> None:
    assert LatentActionTokenizerModel.from_pretrained(output / "tokenizer").config.codebook_size == 16
    assert CycleMimicForActionPrediction.from_pretrained(output / "policy").config.chunk_size == 4
    assert (output / "report.html").stat().st_size > 10_000
    assert list((output / "labels").glob("*.parquet"))
    for folder, words in (("tokenizer", "A latent action tokenizer"), ("policy", "fine-tuned on demonstrations")):
        card = (output / folder / "README.md").read_text(encoding="utf-8")
        assert words in card and "| seed | 0 |" in card and str(output) not in card


def test_metrics_hold_the_promised_keys(output: Path) -> None:
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    promised = "success_rate success_rate_random success_rate_without_latent_pretraining tasks seconds"
    assert set(promised.split()) | {"peak_memory_bytes", "codebook_perplexity"} <= set(metrics)
    assert metrics["success_rate"] is None, "recorded data has no rollouts"
    assert metrics["reloaded_policy_identical"] is True
    assert 1 <= metrics["codebook_perplexity"] <= 16
    # Four frames of 16 have no frame two or more later that is new: 14 pairs an episode, one episode held out.
    assert metrics["labels"] == 14 * (NUM_EPISODES - 1)
    assert metrics["action_error"] > 0
    assert "action_error_random" not in metrics


def test_nothing_is_done_twice(output: Path, data: Path, tiny_settings) -> None:
    before = {path: path.stat().st_mtime_ns for path in (output / "tokenizer").iterdir()}
    seconds = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["seconds"]
    run_demo(DemoConfig(output, data=data, quick=True), tiny_settings)
    assert {path: path.stat().st_mtime_ns for path in (output / "tokenizer").iterdir()} == before
    assert json.loads((output / "metrics.json").read_text(encoding="utf-8"))["seconds"] == seconds


def test_an_interrupted_stage_runs_again(output: Path, data: Path, tiny_settings) -> None:
    record = output / "stages" / "label.json"
    record.unlink()
    (output / "labels" / "labels-00000.parquet").write_bytes(b"half")
    run_demo(DemoConfig(output, data=data, quick=True), tiny_settings)
    assert json.loads(record.read_text(encoding="utf-8"))["results"]["labels"] == 14 * (NUM_EPISODES - 1)


def test_a_reloaded_policy_that_acts_otherwise_ends_the_demo(
    output: Path, data: Path, tiny_settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = output / "stages" / "finetune_policy.json"
    kept = record.read_text(encoding="utf-8")
    record.unlink()
    monkeypatch.setattr("cyclemimic.demo.learning._difference_of_reloaded", lambda *_: 1e-7)
    with pytest.raises(RuntimeError, match="acts differently, by up to 1e-07"):
        run_demo(DemoConfig(output, data=data, quick=True), tiny_settings)
    assert not record.exists()
    record.write_text(kept, encoding="utf-8")


def test_another_run_is_refused(output: Path, data: Path, tiny_settings) -> None:
    with pytest.raises(ValueError, match=r"`output` .* holds another run, whose `seed` is 0 instead of 1"):
        run_demo(DemoConfig(output, data=data, quick=True, seed=1), tiny_settings)


@pytest.mark.parametrize("kept", ["labels/labels.parquet", "policy/model.safetensors", "stages/notes.txt", ".hidden"])
def test_a_folder_with_files_of_the_user_is_refused_untouched(data: Path, tiny_settings, tmp_path: Path, kept) -> None:
    file = tmp_path / "output" / kept
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    first = kept if kept.startswith("stages") else kept.split("/")[0]
    message = (
        f"`output` must be a new or empty folder, or one of an earlier demo, got .*output, which holds {first} and"
    )
    with pytest.raises(ValueError, match=message):
        run_demo(DemoConfig(tmp_path / "output", data=data, quick=True), tiny_settings)
    assert [path for path in (tmp_path / "output").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


def test_what_a_demo_leaves_that_was_killed_at_its_start_is_gone_on_from(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("cyclemimic.demo.pipeline.StageRecords", lambda folder, run: 1 / 0)
    (tmp_path / "stages").mkdir()
    for name in (None, ".run.json.7.partial", "run.json"):  # each moment of writing the record, and after it
        if name is not None:
            (tmp_path / "stages" / name).write_text("{}")
        with pytest.raises(ZeroDivisionError):
            run_demo(DemoConfig(tmp_path, data=data, quick=True))


def test_a_folder_that_is_no_data_set_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        run_demo(DemoConfig(tmp_path / "output", data=tmp_path / "empty"))
    assert not (tmp_path / "output").exists()


def test_too_few_episodes_are_refused(data: Path, tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "one", fps=10, robot_type="square", action_names=["x"]) as writer:
        writer.add_episode(np.zeros((8, 32, 32, 3), np.uint8), np.zeros((8, 1), np.float32), "wait")
    with pytest.raises(DataError, match="has 1 episodes; the demo needs 3"):
        run_demo(DemoConfig(tmp_path / "output", data=tmp_path / "one"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera": "wrist"}, "wrist"),
        ({"seed": -1}, r"`seed` must be in \[0, 2\*\*32\), got -1"),
        ({"data": None, "camera": "wrist"}, "`camera` goes with `data`"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(data: Path, tmp_path: Path, change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_demo(replace(DemoConfig(tmp_path / "output", data=data), **change))
    assert not (tmp_path / "output").exists()
