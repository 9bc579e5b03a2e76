# SPDX-License-Identifier: Apache-2.0
"""What a slot makes of an environment's answers, in this process; and what a worker sends and takes in, in one of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cyclemimic.evaluation.environments.simulator import SimulatorError, UnfitEnvironment
from cyclemimic.evaluation.environments.worker import (
    Act,
    EnvironmentWorker,
    Reset,
    WorkerDied,
    _portable,
    _serve,
    _Slot,
)

# Its images are more than a pipe holds.
FLOOD = """
import numpy as np

class Flood:
    instruction = "flow"

    def __init__(self, task):
        pass

    def reset(self, initial_state):
        pass

    def step(self, action):
        return False

    def render(self):
        return np.zeros((1024, 1024, 3), np.uint8)

    def close(self):
        pass
"""


class Scripted:
    """Solved, ended or neither, as the script says step by step."""

    instruction = "wait"

    def __init__(self, script: list[Any]) -> None:
        self.script = script

    def reset(self, initial_state: int) -> None:
        pass

    def step(self, action: np.ndarray) -> Any:
        return self.script.pop(0)

    def render(self) -> np.ndarray:
        return np.zeros((2, 2, 3), dtype=np.uint8)

    def close(self) -> None:
        pass


@pytest.fixture
def flood(tmp_path, monkeypatch):
    """The class of an environment that new processes can import as well."""
    (tmp_path / "stand_in_flood.py").write_text(FLOOD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(importlib.sys.modules, "stand_in_flood", raising=False)
    return importlib.import_module("stand_in_flood").Flood


def test_requests_are_taken_in_while_outcomes_wait_to_be_received(flood):
    narrow, wide = (np.zeros((1, size), dtype=np.float32) for size in (1, 2_000_000))
    with EnvironmentWorker(flood, film_every=1) as worker:
        worker.send([Reset(0, "flow", 0), Reset(1, "flow", 0)])
        worker.receive()
        worker.send([Act(0, narrow)])
        sending = threading.Thread(target=worker.send, args=([Act(1, wide)],), daemon=True)
        sending.start()
        sending.join(timeout=30)
        assert not sending.is_alive()
        assert [outcome.slot for _ in range(2) for outcome in worker.receive()] == [0, 1]


def test_a_worker_leaves_when_nobody_receives_its_outcomes_any_more(flood):
    worker = EnvironmentWorker(flood, film_every=1)
    try:
        worker.send([Reset(0, "flow", 0)])
        worker._connection.poll(60)
        worker._connection.close()
        worker._process.join(timeout=60)
        assert worker._process.exitcode == 0
    finally:
        worker.kill()


@pytest.mark.parametrize("kind", [EOFError, ConnectionResetError, BrokenPipeError])
def test_a_simulator_that_lost_its_own_connection_says_so(monkeypatch, kind):
    class Client(Scripted):
        def reset(self, initial_state):
            raise kind("the server has left")

    monkeypatch.setattr("signal.signal", lambda *settings: None)
    ours, theirs = multiprocessing.Pipe()
    with ours:
        ours.send([Reset(0, "wait", 0)])
        _serve(theirs, lambda task: Client([]), film_every=1, use_robot_state=False)
        assert ours.poll()
        reply = ours.recv()
    assert str(reply) == f"a simulated environment failed: {kind.__name__}: the server has left"


def test_an_environment_that_ends_its_process_is_said_to(monkeypatch):
    class Quitter(Scripted):
        def step(self, action):
            raise SystemExit(3)

    monkeypatch.setattr("signal.signal", lambda *settings: None)
    ours, theirs = multiprocessing.Pipe()
    with ours:
        ours.send([Reset(0, "wait", 0), Act(0, np.zeros((1, 1), np.float32))])
        _serve(theirs, lambda task: Quitter([]), film_every=1, use_robot_state=False)
        reply = ours.recv()
    assert type(reply) is UnfitEnvironment
    assert str(reply) == "`env` must not end its process, got sys.exit(3) of its code."


def test_a_process_killed_within_an_answer_has_died(monkeypatch):
    worker = EnvironmentWorker(Scripted, film_every=1)
    try:

        def receive():
            raise OSError("got end of file during message")

        monkeypatch.setattr(worker, "_connection", SimpleNamespace(poll=lambda timeout: True, recv=receive))
        with pytest.raises(WorkerDied, match="a simulator process died"):
            worker.receive()
    finally:
        monkeypatch.undo()
        worker.kill()


@pytest.mark.parametrize(
    ("script", "num_steps", "success", "is_over"),
    [
        ([False, False, False], 3, False, False),
        ([False, True], 2, True, True),
        ([None], 1, False, True),
        # `distance < 0.05`, where the distance is of NumPy.
        ([np.False_, np.False_, np.False_], 3, False, False),
        ([np.False_, np.True_], 2, True, True),
    ],
)
def test_a_chunk_is_carried_out_up_to_success_or_end(script, num_steps, success, is_over):
    slot = _Slot(lambda task: Scripted(script), film_every=1, use_robot_state=False)
    slot.reset(Reset(0, "wait", 0))
    outcome = slot.act(Act(0, np.zeros((3, 1), dtype=np.float32)))
    assert (outcome.num_steps, outcome.success, outcome.image is None) == (num_steps, success, is_over)
    assert type(outcome.success) is bool and not script


def test_a_scene_is_rendered_once_for_film_and_policy():
    class Counted(Scripted):
        num_renders = num_steps = 0

        def step(self, action):
            self.num_steps += 1
            return False

        def render(self):
            self.num_renders += 1
            return np.full((2, 2, 3), self.num_steps, dtype=np.uint8)

    environment = Counted([])
    slot = _Slot(lambda task: environment, film_every=2, use_robot_state=False)
    slot.reset(Reset(0, "wait", 0, filmed=True))
    frames = [frame for _ in range(2) for frame in slot.act(Act(0, np.zeros((3, 1), np.float32))).frames]
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 2, 4]
    # Those, and what the policy saw after three steps and after six.
    assert environment.num_renders == 5
    slot.reset(Reset(0, "wait", 0))
    assert environment.num_renders == 6


@pytest.mark.parametrize("kind", [SimulatorError, UnfitEnvironment])
def test_our_own_errors_come_back_as_they_are(kind):
    error = kind("one line")
    assert _portable(error) is error


def test_a_value_error_of_the_users_code_comes_back_with_the_workers_trace():
    def their_step():
        raise ValueError("no such joint")

    try:
        their_step()
    except ValueError as error:
        came = _portable(error)
    assert type(came) is RuntimeError and "ValueError: no such joint" in str(came)
    assert "in their_step" in came.__notes__[0]
