# SPDX-License-Identifier: Apache-2.0
"""What a training goes on from is a training on the same data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from transformers import TrainingArguments

from cyclemimic.commands import training
from cyclemimic.commands.training import check_same_data, checkpoint_to_resume, stream_pairs
from cyclemimic.data import Episode, FramePairDataset, InMemorySource, MixtureDataset, WeightedSource


def source(name, num_frames=12, embodiment="arm"):
    frames = np.zeros((num_frames, 8, 8, 3), np.uint8)
    return InMemorySource([Episode.from_arrays(frames, fps=10.0, source=name, embodiment=embodiment)])


@pytest.fixture
def mixture():
    return [WeightedSource(source(name), weight, 0.5, 0.2) for name, weight in (("a", 1.0), ("b", 2.0))]


@pytest.fixture
def checkpoint(tmp_path, mixture):
    settings = {}
    check_same_data(None, settings, MixtureDataset(mixture), mixture)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"eval_strategy": "steps"},
            "`eval_strategy` must be left out, got steps: training has no data to evaluate on",
        ),
        ({"eval_on_start": True, "eval_strategy": "no"}, "`eval_on_start` must be left out, got True"),
        ({"save_strategy": "best"}, "`save_strategy` must be left out, got best: training has no data"),
        ({"load_best_model_at_end": True}, "`load_best_model_at_end` must be left out, got True"),
        ({"fp16": True}, "`fp16` must be left out on a CPU"),
        ({"hub_model_id": "a/b/c"}, "Repo id must be in the form .* 'a/b/c'"),
        ({"optim": "galore_adamw"}, "`optim` must be what is installed, got galore_adamw: .*galore_torch"),
        ({"report_to": ["comet_ml"]}, "`report_to` must be what is installed, got .*comet"),
    ],
)
def test_what_trainer_would_refuse_after_all_else_is_refused_first(tmp_path, changes, message):
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    for name, value in changes.items():
        setattr(arguments, name, value)
    with pytest.raises(ValueError, match=message):
        checkpoint_to_resume(arguments, {})


@pytest.mark.parametrize("wanted", ["true", "yes", "True"])
def test_true_means_the_last_checkpoint_as_a_yaml_file_says_it_too(tmp_path, wanted):
    for step in (1, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("trainer_state.json", "scheduler.pt", "optimizer.pt"):
            (folder / name).touch()
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, resume_from_checkpoint=wanted)
    assert checkpoint_to_resume(arguments, {}) == str(tmp_path / "checkpoint-10")
    arguments.resume_from_checkpoint = "no"
    with pytest.raises(ValueError, match="`output_dir` must not hold checkpoints of another training"):
        checkpoint_to_resume(arguments, {})


def test_order_of_streamed_pairs(mixture, tmp_path):
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, seed=3)

    def seed_of_order(data_seed):
        arguments.data_seed = data_seed
        return stream_pairs(mixture, lambda frame: frame, arguments)._seed

    assert [seed_of_order(each) for each in (None, 3, 4)] == [3, 3, 4]
    arguments.auto_find_batch_size = True
    with pytest.raises(ValueError, match="`auto_find_batch_size` must be false for a mixture"):
        seed_of_order(None)


def test_the_same_mixture_goes_on(checkpoint, mixture):
    check_same_data(checkpoint, {}, MixtureDataset(mixture), mixture)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, b: [a], "data_sets ['a'] instead of ['a', 'b']"),
        (lambda a, b: [a, replace(b, weight=3.0)], "'weight': 3.0"),
        (lambda a, b: [a, replace(b, interval_s=(0.4, 0.5))], "'interval_s': [0.4, 0.5]"),
        (lambda a, b: [a, replace(b, source=source("b", 13))], "'frames': 13"),
        (lambda a, b: [a, replace(b, source=source("b", embodiment="hand"))], "'embodiment': 'hand'"),
    ],
)
def test_another_mixture_of_the_same_file_is_refused(checkpoint, mixture, change, words):
    changed = change(*mixture)
    with pytest.raises(ValueError, match="must be of a training with the same settings") as error:
        check_same_data(checkpoint, {}, MixtureDataset(changed), changed)
    assert words in str(error.value)


def test_data_sets_that_have_grown_are_refused(tmp_path):
    settings = {}
    check_same_data(None, settings, FramePairDataset([source("a")], 0.5, 0.2), [source("a")])
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    grown = [source("a", 20)]
    with pytest.raises(ValueError, match="'frames': 20"):
        check_same_data(str(tmp_path), {}, FramePairDataset(grown, 0.5, 0.2), grown)


def test_processes_that_see_other_data_are_refused(mixture, monkeypatch):
    """One of them has missed a data set."""
    monkeypatch.setattr(training, "gather_object", lambda of_this: [*of_this, of_this[0][:1]])
    with pytest.raises(ValueError, match="`data` must be the same in every process"):
        check_same_data(None, {}, MixtureDataset(mixture), mixture)
