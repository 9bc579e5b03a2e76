# SPDX-License-Identifier: Apache-2.0
"""Rollouts, mostly on a stand-in simulator whose every outcome can be worked out by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from cyclemimic.evaluation.environments.metaworld import MetaworldEnvironment, SimulatorError
from cyclemimic.evaluation.policy import ChunkPolicy, RandomPolicy
from cyclemimic.evaluation.rollout import Trial, TrialResult, run_rollouts

# A point that walks along a line and has arrived when it has gone as far as its initial state says. Its image tells where
# it is, how often it was rendered since the reset, and which initial state it is in.
WALK = """
import os
from pathlib import Path
import numpy as np

class Walk:
    def __init__(self, task):
        with Path(__file__).with_name("built").open("a") as built:
            built.write(f"{task}\\n")
        if task == "refuse":
            from cyclemimic.evaluation.environments.simulator import SimulatorError
            raise SimulatorError("no such walk; install one")
        self.task, self.instruction = task, f"please {task}"

    def reset(self, initial_state):
        self.goal, self.position, self.renders = initial_state, 0.0, 0

    def step(self, action):
        if self.task == "die":
            os._exit(3)
        if self.task == "die once" and self.position > 0 and not Path(__file__).with_name("died").exists():
            Path(__file__).with_name("died").touch()
            os._exit(3)
        if self.task == "fail":
            raise KeyError("leg")
        self.position += float(action[0])
        return self.position >= self.goal

    def render(self):
        self.renders += 1
        return np.array([[[int(self.position) % 256, self.renders, self.goal]]], dtype=np.uint8)

    @property
    def state(self):
        return np.array([self.position, 5])

    def close(self):
        pass
"""


@pytest.fixture
def walk(tmp_path, monkeypatch) -> Callable[[str], Any]:
    """The stand-in's class, which new processes can import as well."""
    (tmp_path / "stand_in_walk.py").write_text(WALK)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("stand_in_walk").Walk


class StepPolicy:
    """Always one step forward; keeps what it was shown."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[np.ndarray], list[str]]] = []

    def predict(self, images, instructions, robot_states=None):
        self.calls.append((images, instructions))
        return np.ones((len(images), 4, 1), dtype=np.float32)


def summary(results: list[TrialResult]) -> list[tuple[Any, ...]]:
    return [(each.trial, each.success, each.num_steps, [frame.tobytes() for frame in each.frames]) for each in results]


def test_outcomes_come_in_the_order_of_the_trials(walk):
    trials = [Trial("go", goal) for goal in (7, 2, 30, 1, 10)]
    results = run_rollouts(StepPolicy(), trials, walk, max_steps=10, num_action_steps=3, num_environments=2)
    assert [result.trial for result in results] == trials
    assert [result.success for result in results] == [True, True, False, True, True]
    assert [result.num_steps for result in results] == [7, 2, 10, 1, 10]


class RisingPolicy:
    """One step forward, then three."""

    def predict(self, images, instructions, robot_states=None):
        return np.tile(np.array([[1.0], [3.0]], dtype=np.float32), (len(images), 1, 1))


def test_chunks_are_averaged_within_a_trial(walk):
    # The first action is 1, every other the mean of the chunk before's 3 and the new one's 1; a new trial begins with 1.
    trials = [Trial("go", goal) for goal in (7, 4)]
    settings = {"max_steps": 10, "num_action_steps": 1, "num_environments": 1}
    averaged = run_rollouts(RisingPolicy(), trials, walk, **settings, temporal_ensemble_coeff=0.0)
    assert [result.num_steps for result in averaged] == [4, 3]
    plain = run_rollouts(RisingPolicy(), trials, walk, **settings)
    assert [result.num_steps for result in plain] == [7, 4]


def test_a_trial_that_is_repeated_begins_without_chunks(walk, tmp_path):
    trials = [Trial("die once", 4, filmed=True)]
    (result,) = run_rollouts(RisingPolicy(), trials, walk, 10, 1, num_workers=1, temporal_ensemble_coeff=0.0)
    assert (tmp_path / "died").exists()
    assert result.num_steps == 3
    assert [int(frame[0, 0, 0]) for frame in result.frames] == [0, 3, 5], "nor is what the dead one showed on its film"


def test_averaging_looks_before_every_action(walk):
    with pytest.raises(ValueError, match="`num_action_steps` must be 1 with `temporal_ensemble_coeff`, got 3"):
        run_rollouts(StepPolicy(), [Trial("go", 2)], walk, 10, num_action_steps=3, temporal_ensemble_coeff=0.1)


def test_policy_is_called_once_for_each_half_and_a_new_trial_joins_its_half(walk):
    policy = StepPolicy()
    trials = [Trial("go", goal) for goal in (9, 3, 6, 7, 2)]
    run_rollouts(policy, trials, walk, max_steps=9, num_action_steps=3, num_environments=4)
    shown = [[int(image[0, 0, 2]) for image in images] for images, _ in policy.calls]
    # The last trial takes the place of the second while the first goes on, and is seen with it the time after.
    assert shown == [[9, 3], [6, 7], [9], [6, 7], [9, 2], [7]]


def test_policy_sees_the_present_and_nothing_is_rendered_that_nobody_looks_at(walk):
    policy = StepPolicy()
    run_rollouts(policy, [Trial("go", 9)], walk, max_steps=20, num_action_steps=4, num_workers=1)
    shown = [(int(images[0][0, 0, 0]), int(images[0][0, 0, 1]), instructions) for images, instructions in policy.calls]
    assert shown == [(0, 1, ["please go"]), (4, 2, ["please go"]), (8, 3, ["please go"])]


def test_policy_feels_the_robot_where_it_asks_for_it(walk):
    class StatePolicy(StepPolicy):
        def predict(self, images, instructions, robot_states):
            states.append([state.tolist() for state in robot_states])
            return super().predict(images, instructions)

    states = []
    trials = [Trial("go", goal) for goal in (7, 3, 2)]
    run_rollouts(StatePolicy(), trials, walk, 20, 4, num_workers=2, use_robot_state=True)
    assert states == [[[0, 5], [0, 5]], [[0, 5]], [[4, 5]]]


@pytest.mark.parametrize(("goal", "filmed_positions"), [(5, [0, 2, 4, 5]), (6, [0, 2, 4, 6]), (50, [0, 2, 4, 6, 7])])
def test_films_show_every_other_step_and_the_end(walk, goal, filmed_positions):
    trials = [Trial("go", goal, filmed=True), Trial("go", goal)]
    filmed, unfilmed = run_rollouts(StepPolicy(), trials, walk, max_steps=7, num_action_steps=3, film_every=2)
    assert [int(frame[0, 0, 0]) for frame in filmed.frames] == filmed_positions
    assert unfilmed.frames == []


def test_results_do_not_depend_on_the_number_of_processes(walk):
    trials = [Trial(task, goal, filmed=goal == 3) for task in ("go", "run") for goal in range(1, 6)]
    runs = [
        run_rollouts(RandomPolicy(1, 4, seed=1), trials, walk, 40, 3, num_workers=workers, num_environments=3)
        for workers in (1, 2)
    ]
    assert summary(runs[0]) == summary(runs[1])
    assert 0 < sum(result.success for result in runs[0]) < len(trials)


def test_scenes_are_built_again_only_where_a_task_runs_out(walk, tmp_path):
    trials = [Trial(task, goal) for task in ("go", "run", "hop", "swim") for goal in (30, 2, 30, 1, 30)]
    one_by_one = run_rollouts(StepPolicy(), trials, walk, 8, 4, num_workers=1, num_environments=1)
    built = tmp_path / "built"
    assert built.read_text().split() == ["go", "run", "hop", "swim"]
    for workers in (1, 2):
        built.unlink()
        results = run_rollouts(StepPolicy(), trials, walk, 8, 4, num_workers=workers, num_environments=3)
        assert summary(results) == summary(one_by_one)
        # Each environment keeps the task it began with, and takes part in the last one.
        assert sorted(built.read_text().split()) == ["go", "hop", "run", "swim", "swim", "swim"]


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("die", RuntimeError, r"process died \(exit code 3\)"),
        ("fail", RuntimeError, "environment failed: KeyError: 'leg'"),
        ("refuse", SimulatorError, "^no such walk; install one$"),
    ],
)
def test_a_worker_that_fails_is_an_error_and_no_hang(walk, task, error, message):
    with pytest.raises(error, match=message):
        run_rollouts(StepPolicy(), [Trial("go", 9), Trial(task, 9)], walk, 20, 4)


def test_a_silent_worker_is_given_up(walk):
    from cyclemimic.evaluation.environments.worker import EnvironmentWorker

    with EnvironmentWorker(walk, film_every=1, timeout_s=0.2) as worker:
        worker.send([])
        worker._connection.poll(30)
        assert worker.receive() == []
        with pytest.raises(RuntimeError, match=r"silent for 0\.2 s"):
            worker.receive()


@pytest.mark.parametrize("name", ["max_steps", "num_action_steps", "num_workers", "film_every", "num_environments"])
def test_numbers_below_one_are_named(walk, name):
    arguments = {"max_steps": 5, "num_action_steps": 2, name: 0}
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        run_rollouts(StepPolicy(), [Trial("go", 1)], walk, **arguments)


def test_no_trials_is_no_results(walk):
    assert run_rollouts(StepPolicy(), [], walk, 5, 2) == []


def test_random_policy_is_reproducible_and_in_range():
    images = [np.zeros((2, 2, 3), np.uint8)] * 3
    actions = RandomPolicy(4, 6, seed=5).predict(images, [""] * 3)
    assert actions.shape == (3, 6, 4) and np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions, RandomPolicy(4, 6, seed=5).predict(images, [""] * 3))
    assert (actions != RandomPolicy(4, 6, seed=6).predict(images, [""] * 3)).all()


def test_chunk_policy_goes_through_the_processor():
    class Inputs(dict):
        def to(self, device):
            return self

    class Processor:
        def __call__(self, images, text, robot_state=None, dataset=None):
            if robot_state is not None:
                return Inputs(values=torch.tensor(np.stack(robot_state)).sum(1) + {"arm": 1}[dataset])
            return Inputs(values=torch.tensor([float(image.mean()) + len(line) for image, line in zip(images, text)]))

        def post_process_actions(self, actions, dataset):
            return actions.numpy() * {"arm": 10}[dataset]

    class Model(torch.nn.Module):
        device = "cpu"

        def predict_action_chunk(self, values):
            assert torch.is_inference_mode_enabled() and not self.training
            return values[:, None, None].expand(-1, 2, 3)

    policy = ChunkPolicy(Model(), Processor(), "arm")
    images = [np.full((2, 2, 3), value, np.uint8) for value in (1, 4)]
    actions = policy.predict(images, ["ab", "abc"])
    np.testing.assert_array_equal(actions, np.broadcast_to(np.array([30.0, 70.0])[:, None, None], (2, 2, 3)))
    actions = policy.predict(images, ["ab", "abc"], [np.ones(2), np.zeros(2)])
    assert actions[:, 0, 0].tolist() == [30, 10]


def test_metaworld_rolls_out():
    trials = [Trial(task, 3, filmed=True) for task in ("reach-v3", "drawer-open-v3")]
    make = partial(MetaworldEnvironment, image_size=32)
    try:
        runs = [run_rollouts(RandomPolicy(4, 4), trials, make, 8, 4, num_workers=workers) for workers in (1, 2)]
    except SimulatorError as error:
        pytest.skip(str(error))
    assert summary(runs[0]) == summary(runs[1])
    for result in runs[0]:
        environment = make(result.trial.task)
        environment.reset(3)
        np.testing.assert_array_equal(result.frames[0], environment.render())
        environment.close()
        assert result.num_steps == 8 and not result.success and len(result.frames) == 5
