# SPDX-License-Identifier: Apache-2.0
"""Workers that die, on a stand-in simulator that dies where a file says so."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyclemimic.evaluation.environments import pool as pools
from cyclemimic.evaluation.environments.pool import MAX_REPEATS, EnvironmentPool
from cyclemimic.evaluation.environments.worker import Act, EnvironmentWorker, Outcome, Reset, WorkerDied
from cyclemimic.evaluation.rollout import Trial, TrialResult, run_rollouts

# A point that walks as far as its initial state says. Its image tells where it is and its process's id. In state 5, it
# stands still for ever at place 3 as long as the file `trap` exists, which it removes where it says "once".
WALK = """
import os, time
from pathlib import Path
import numpy as np

TRAP = Path(__file__).with_name("trap")

class Walk:
    instruction = "walk"

    def __init__(self, task):
        pass

    def reset(self, initial_state):
        self.goal, self.position = initial_state, 0

    def step(self, action):
        self.position += 1
        if self.goal == 5 and self.position == 3 and TRAP.exists():
            once = TRAP.read_text()
            if once:
                TRAP.unlink()
            if once == "sleep":
                time.sleep(60)
            os.kill(os.getpid(), 9)
        if self.goal == 4 and self.position == 2:
            return None
        return self.position >= self.goal

    def render(self):
        return np.array([[[self.position, os.getpid() % 256, self.goal]]], dtype=np.uint8)

    def close(self):
        pass
"""


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    (tmp_path / "stand_in_trapped_walk.py").write_text(WALK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(importlib.sys.modules, "stand_in_trapped_walk", raising=False)
    return importlib.import_module("stand_in_trapped_walk").Walk


class StepPolicy:
    def predict(self, images, instructions, robot_states=None):
        return np.ones((len(images), 4, 1), dtype=np.float32)


def play(walk: Callable[[str], Any], **settings: Any) -> list[tuple[Any, ...]]:
    trials = [Trial("go", goal, filmed=goal in (5, 6)) for goal in (6, 5, 2, 7, 4)]
    results = run_rollouts(
        StepPolicy(), trials, walk, 10, 2, num_workers=2, num_environments=4, film_every=1, **settings
    )
    return [summary(result) for result in results]


def summary(result: TrialResult) -> tuple[Any, ...]:
    return result.trial.initial_state, result.success, result.num_steps, [int(each[0, 0, 0]) for each in result.frames]


EXPECTED = [
    (6, True, 6, [0, 1, 2, 3, 4, 5, 6]),
    (5, True, 5, [0, 1, 2, 3, 4, 5]),
    (2, True, 2, []),
    (7, True, 7, []),
    (4, False, 2, []),  # the environment has ended it
]


@pytest.mark.parametrize("death", ["kill", "sleep"])
def test_a_dead_or_silent_worker_changes_no_result(walk, tmp_path, death, caplog):
    (tmp_path / "trap").write_text(death)
    assert play(walk, timeout_s=4 if death == "sleep" else 60) == EXPECTED
    assert not (tmp_path / "trap").exists()
    assert "2 trials begin again in a new one" in caplog.text


def test_busy_workers_are_left_together(walk, tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "LEAVE_S", 1.0)
    (tmp_path / "trap").write_text("sleep")
    with EnvironmentPool(partial(EnvironmentWorker, walk, 1), 4) as pool:
        pool.submit([Reset(slot, "go", 5) for slot in range(4)])
        pool.collect(range(4))
        pool.submit([Act(slot, np.ones((4, 1), dtype=np.float32)) for slot in range(4)])
        joined = []
        for worker in pool._workers:
            monkeypatch.setattr(worker._process, "join", lambda timeout=None: joined.append(timeout))
    waits = [timeout for timeout in joined if timeout is not None]
    assert len(waits) == 4 and waits == sorted(waits, reverse=True) and max(waits) <= 1.0
    monkeypatch.undo()
    for worker in pool._workers:
        worker._process.join(10)
        assert worker._process.exitcode is not None


def test_a_trial_that_kills_every_worker_is_given_up(walk, tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "MAX_REPEATS", 1)
    (tmp_path / "trap").write_text("")
    with pytest.raises(WorkerDied, match=r"process died \(exit code -9\)"):
        run_rollouts(StepPolicy(), [Trial("go", 5)], walk, 10, 2, num_workers=1)
    assert MAX_REPEATS > 1


def test_the_others_go_on_where_they_were(walk):
    with EnvironmentPool(partial(EnvironmentWorker, walk, 1), 2) as pool:
        pool.submit([Reset(0, "go", 9), Reset(1, "go", 9)])
        pool.collect([0, 1])
        step = np.ones((1, 1), dtype=np.float32)
        pool.submit([Act(0, step), Act(1, step)])
        pool.collect([0, 1])
        os.kill(pool._workers[1]._process.pid, signal.SIGKILL)
        pool.submit([Act(0, step), Act(1, step)])
        views = pool.collect([0, 1])
    assert [(view.image[0, 0, 0], view.repeated) for _, view in sorted(views.items())] == [(2, False), (0, True)]


def test_a_death_repeats_what_was_answered_but_not_collected(walk):
    """Slots 0 and 1 of one process: the answer of slot 1 has come when the process dies over slot 0's next request."""
    step = np.ones((1, 1), dtype=np.float32)
    with EnvironmentPool(partial(EnvironmentWorker, walk, 1), 1) as pool:
        pool.submit([Reset(0, "go", 9), Reset(1, "go", 1)])
        pool.collect([0, 1])
        pool.submit([Act(0, step), Act(1, step)])
        assert pool.collect([0])[0].image[0, 0, 0] == 1
        os.kill(pool._workers[0]._process.pid, signal.SIGKILL)
        pool.submit([Act(0, step)])
        views = pool.collect([0, 1])
    assert (views[0].image[0, 0, 0], views[0].repeated) == (0, True)
    assert (views[1].success, views[1].repeated) == (True, False)  # it had ended before


class ScriptedWorker:
    """Answers every message, and dies instead where the script says so."""

    def __init__(self, script: list[bool]) -> None:
        self.script, self.messages = script, []

    def send(self, requests):
        self.messages.append(requests)

    def receive(self):
        requests = self.messages.pop(0)
        if self.script.pop(0):
            raise WorkerDied("it was told to")
        return [
            Outcome(each.slot, np.zeros(1), "go", repeated=isinstance(each, Reset) and each.repeats > 0)
            for each in requests
        ]

    def kill(self):
        self.messages.clear()

    def leave(self):
        pass

    def end(self, timeout_s):
        pass


def test_what_came_before_a_death_of_the_same_worker_is_void():
    """A worker answers for one slot, and dies over another: each slot then has one outcome, that of its new beginning."""
    script = [
        False,
        False,
        True,
        False,
        False,
    ]  # resets, the first slot's step; the second slot's; resets again, steps
    step = np.ones((1, 1), dtype=np.float32)
    with EnvironmentPool(lambda: ScriptedWorker(script), 1) as pool:
        pool.submit([Reset(0, "go", 9), Reset(1, "go", 9)])
        assert not any(outcome.repeated for outcome in pool.collect([0, 1]).values())
        pool.submit([Act(0, step)])
        pool.submit([Act(1, step)])
        assert [outcome.repeated for outcome in pool.collect([0, 1]).values()] == [True, True]
        pool.submit([Act(0, step), Act(1, step)])
        assert [outcome.repeated for outcome in pool.collect([0, 1]).values()] == [False, False]
    assert not script
