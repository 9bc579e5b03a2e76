# SPDX-License-Identifier: Apache-2.0
"""Trainings that are stopped at any moment, and go on as if they had not been."""

from __future__ import annotations

import errno
import itertools
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from cyclemimic.trainers.pace import FIGURES

from .small_trainers import make_policy_trainer, make_tokenizer_trainer

TRAINERS = {"tokenizer": make_tokenizer_trainer, "policy": make_policy_trainer}
# Forked from a process that has imported everything, and in which autograd has no threads yet.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([make_policy_trainer.__module__, "transformers.trainer"])


@pytest.fixture(params=TRAINERS)
def kind(request) -> str:
    return request.param


class Permits(TrainerCallback):
    """A step each: on a busy machine, who is to kill a training may sleep for as long as all of it takes."""

    def __init__(self, semaphore) -> None:
        self.semaphore = semaphore

    def on_step_begin(self, *args, **kwargs) -> None:
        self.semaphore.acquire()


def train(kind: str, output_dir: Path, semaphore=None, **changes) -> Trainer:
    """Go on from the last checkpoint, if there is one."""
    torch.set_num_threads(1)
    # Forks share the lock that tqdm has made; one that is killed while it holds that would stop all others.
    tqdm.set_lock(threading.RLock())
    trainer = TRAINERS[kind](
        output_dir, **{"max_steps": 24, "save_steps": 1, "logging_steps": 1, "lr_scheduler_type": "constant"} | changes
    )
    if semaphore is not None:
        trainer.add_callback(Permits(semaphore))
    trainer.train(resume_from_checkpoint=bool(output_dir.is_dir() and get_last_checkpoint(output_dir)))
    return trainer


def train_and_die_while_saving(kind: str, output_dir: Path) -> None:
    save = Trainer._save_rng_state

    def save_or_die(self: Trainer, folder: str) -> None:
        if self.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, folder)

    Trainer._save_rng_state = save_or_die
    train(kind, output_dir)


def train_and_save(kind: str, output_dir: Path, semaphore) -> None:
    train(kind, output_dir, semaphore).save_model(str(output_dir))


def checkpoints(output_dir: Path) -> dict[str, dict[str, int]]:
    """Sizes of the files of each checkpoint."""
    return {
        folder.name: {path.name: path.stat().st_size for path in folder.iterdir()}
        for folder in output_dir.glob("checkpoint-*")
    }


def contents(checkpoint: Path) -> dict[str, object]:
    """What a training goes on from: weights with buffers, moments of the optimizer, schedule, random state, position."""
    loaded = {
        path.name: torch.load(path, weights_only=False)
        for path in checkpoint.glob("*.pt*")
        if path.name != "training_args.bin"
    }
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    for line in state["log_history"]:
        for name in FIGURES:
            del line[name]
    return loaded | {"weights": (checkpoint / "model.safetensors").read_bytes(), "state": state}


def assert_same(expected: object, actual: object) -> None:
    if isinstance(expected, dict):
        assert expected.keys() == actual.keys()
        for key, value in expected.items():
            assert_same(value, actual[key])
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(actual)
        for one, other in zip(expected, actual):
            assert_same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(expected, actual)
    elif isinstance(expected, np.ndarray):
        assert np.array_equal(expected, actual)
    elif hasattr(expected, "__dict__"):  # such as DeepSpeed's loss scaler
        assert_same(vars(expected), vars(actual))
    else:
        assert expected == actual


def test_killed_at_random_moments(kind, tmp_path):
    whole, parts, random = tmp_path / "whole", tmp_path / "parts", np.random.default_rng(0)
    train(kind, whole)
    complete = checkpoints(whole)
    assert len(complete) == 24
    for _ in range(5):
        known = checkpoints(parts)
        semaphore = FORKS.Semaphore(4)
        process = FORKS.Process(target=train, args=(kind, parts, semaphore))
        process.start()
        wanted, end = len(known) + random.integers(1, 4), time.monotonic() + 60
        while len(checkpoints(parts)) < wanted and time.monotonic() < end and process.is_alive():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.join()
        found = checkpoints(parts)
        assert len(found) > len(known)
        for name, files in found.items():
            assert files.keys() == complete[name].keys()
    train(kind, parts)
    assert_same(contents(whole / "checkpoint-24"), contents(parts / "checkpoint-24"))
    assert not (parts / ".unfinished").exists()


# Within an epoch, at its end, and by a share of epochs.
@pytest.mark.parametrize(
    "length", [{"max_steps": 2}, {"max_steps": -1, "num_train_epochs": 1}, {"max_steps": -1, "num_train_epochs": 1.3}]
)
def test_a_training_at_its_end_trains_no_more(kind, length, tmp_path):
    length = length | {"save_strategy": "steps", "save_steps": 0.5, "logging_steps": 1}
    whole = train(kind, tmp_path, **length)
    evaluated = whole.evaluate()
    whole.save_model(str(tmp_path / "whole"))
    complete, last = checkpoints(tmp_path), Path(get_last_checkpoint(tmp_path))
    saved = contents(last)
    assert len(complete) == 2

    resumed = TRAINERS[kind](tmp_path, lr_scheduler_type="constant", **length)
    output = resumed.train(resume_from_checkpoint=True)
    assert output.global_step == resumed.state.global_step == whole.state.global_step
    assert math.isnan(output.training_loss) and "train_runtime" in output.metrics
    assert not {"train_loss", "train_steps_per_second"} & {*output.metrics, *resumed.state.log_history[-1]}
    losses, expected = ([line for line in run.state.log_history if "loss" in line] for run in (resumed, whole))
    assert losses == expected
    again = resumed.evaluate()
    assert again.keys() == evaluated.keys()
    assert all(
        again[name] == value for name, value in evaluated.items() if "second" not in name and "time" not in name
    )
    resumed.save_model(str(tmp_path / "resumed"))
    weights, expected = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("resumed", "whole"))
    assert weights == expected
    assert_same(saved, contents(last))
    assert checkpoints(tmp_path) == complete


def test_a_checkpoint_beyond_the_end_is_taken_as_it_is(tmp_path):
    train("tokenizer", tmp_path, max_steps=3)
    assert train("tokenizer", tmp_path, max_steps=2).state.global_step == 3
    assert len(checkpoints(tmp_path)) == 3


def test_a_checkpoint_that_was_being_written_is_not_gone_on_from(tmp_path):
    process = FORKS.Process(target=train_and_die_while_saving, args=("tokenizer", tmp_path))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == [".unfinished", "checkpoint-1", "checkpoint-2"]
    assert (tmp_path / ".unfinished" / "checkpoint-3" / "model.safetensors").is_file()
    assert train("tokenizer", tmp_path, max_steps=4).state.global_step == 4
    assert len(checkpoints(tmp_path)) == 4 and not (tmp_path / ".unfinished").exists()


def test_sigterm_saves_first(kind, tmp_path):
    semaphore = FORKS.Semaphore(3)
    process = FORKS.Process(target=train_and_save, args=(kind, tmp_path, semaphore))
    process.start()
    while not (tmp_path / "checkpoint-2").is_dir() and process.is_alive():
        time.sleep(0.001)
    process.terminate()
    semaphore.release()
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
    # The model itself is saved by what comes after a training that has come to its end.
    assert not (tmp_path / "config.json").exists()
    last = Path(get_last_checkpoint(tmp_path))
    assert last.name in ("checkpoint-3", "checkpoint-4")
    assert contents(last).keys() == contents(tmp_path / "checkpoint-2").keys()


def test_sigterm_without_checkpoints_saves_one(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path, save_strategy="no", max_steps=50)
    handled = []
    previous = signal.signal(signal.SIGTERM, lambda *_: handled.append(trainer.state.global_step))
    step = trainer.training_step

    def told_at_the_third(*args, **kwargs):
        if trainer.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args, **kwargs)

    trainer.training_step = told_at_the_third
    try:
        trainer.train()
        # What SIGTERM did before, it does behind the checkpoint, once, and from then on again.
        assert handled == [3] and list(checkpoints(tmp_path)) == ["checkpoint-3"]
        os.kill(os.getpid(), signal.SIGTERM)
        assert handled == [3, 3]
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    save = Trainer._save_rng_state

    def save_until_full(self, folder):
        if self.state.global_step == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, folder)

    monkeypatch.setattr(Trainer, "_save_rng_state", save_until_full)
    with pytest.raises(OSError, match="No space left on device"):
        train("tokenizer", tmp_path, save_total_limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    monkeypatch.undo()
    assert train("tokenizer", tmp_path, max_steps=4, save_total_limit=1).state.global_step == 4
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_the_best_checkpoint_is_named_and_kept(tmp_path):
    trainer = make_tokenizer_trainer(
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        save_total_limit=2,
        metric_for_best_model="eval_loss",
        load_best_model_at_end=True,
    )
    losses = itertools.chain([3.0, 1.0, 4.0], itertools.repeat(5.0))
    trainer.evaluate = lambda *_, **__: {"eval_loss": next(losses)}
    trainer.train()
    assert sorted(checkpoints(tmp_path)) == ["checkpoint-2", "checkpoint-4"]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    saved = type(trainer.state).load_from_json(str(tmp_path / "checkpoint-4" / "trainer_state.json"))
    assert saved.best_model_checkpoint == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("save_strategy", ["steps", "best"])
def test_a_stopped_training_keeps_its_checkpoint_beside_the_best(tmp_path, save_strategy):
    fields = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 1}
    fields |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    trainer = make_tokenizer_trainer(tmp_path, save_strategy=save_strategy, save_steps=1, max_steps=50, **fields)
    trainer.eval_dataset = trainer.train_dataset
    losses = chain([5.0, 1.0], repeat(3.0))
    trainer.evaluate = lambda *_, **__: {"eval_loss": next(losses)}
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    step = trainer.training_step

    def told_at_the_fourth(*args, **kwargs):
        if trainer.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args, **kwargs)

    trainer.training_step = told_at_the_fourth
    try:
        trainer.train()
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert sorted(checkpoints(tmp_path)) == ["checkpoint-2", "checkpoint-4"]
    assert trainer.args.save_total_limit == 1 and trainer.args.load_best_model_at_end


def test_a_signal_after_the_last_step_ends_a_training_that_is_over(tmp_path):
    """Other processes may not have been told: they load the best model together, or not at all."""
    fields = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 1}
    fields |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    trainer = make_tokenizer_trainer(tmp_path, save_strategy="steps", save_steps=1, max_steps=3, **fields)
    trainer.eval_dataset = trainer.train_dataset
    losses = chain([5.0, 1.0], repeat(3.0))

    def told_in_the_last_evaluation(*_, **__):
        if trainer.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"eval_loss": next(losses)}

    trainer.evaluate = told_in_the_last_evaluation
    handled = []
    previous = signal.signal(signal.SIGTERM, lambda *_: handled.append(True))
    try:
        trainer.train()
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert handled == [True] and sorted(checkpoints(tmp_path)) == ["checkpoint-2"]
    best = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in trainer.model.state_dict().items() if name in best)
