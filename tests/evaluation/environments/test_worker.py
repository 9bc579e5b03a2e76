# SPDX-License-Identifier: Apache-2.0
"""What a slot makes of an environment's answers, in this process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cyclemimic.evaluation.environments.simulator import SimulatorError, UnfitEnvironment
from cyclemimic.evaluation.environments.worker import Act, EnvironmentWorker, Reset, WorkerDied, _portable, _Slot


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
