# SPDX-License-Identifier: Apache-2.0
"""The simulator as the rest of the package sees it. Frames are checked for sense: a broken renderer gives no error."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest

from cyclemimic.evaluation.environments.metaworld import MAX_STEPS, TASKS, MetaworldEnvironment, SimulatorError

SIZE = 64
TASK = "drawer-open-v3"


def make(task: str = TASK, **settings) -> MetaworldEnvironment:
    try:
        return MetaworldEnvironment(task, SIZE, **settings)
    except SimulatorError as error:
        pytest.skip(str(error))


@pytest.fixture
def environment() -> Iterator[MetaworldEnvironment]:
    environment = make()
    yield environment
    environment.close()


def first_frame(environment: MetaworldEnvironment, initial_state: int) -> np.ndarray:
    environment.reset(initial_state)
    return environment.render()


def run_expert(environment: MetaworldEnvironment, num_steps: int = MAX_STEPS) -> int | None:
    """Steps to success."""
    return next((step for step in range(1, num_steps + 1) if environment.step(environment.expert_action())), None)


def share_of_edges(frame: np.ndarray) -> float:
    return float((np.abs(np.diff(frame.astype(int), axis=0)).max(-1) > 60).mean())


@pytest.mark.parametrize("task", TASKS)
def test_frames_show_a_scene(task):
    environment = make(task)
    frame = first_frame(environment, 0)
    assert frame.shape == (SIZE, SIZE, 3) and frame.dtype == np.uint8
    assert frame.std() > 30, "blank"
    assert share_of_edges(frame) < 0.2, "noise"
    # Behind the table's wall, at the top, there is nothing.
    void = (frame == 0).all(-1)
    assert void[: SIZE // 8].mean() > void[-SIZE // 8 :].mean() + 0.2, "upside down, or another view"
    assert environment.instruction == TASKS[task]
    environment.close()


@pytest.mark.parametrize("task", ["reach-v3", "button-press-topdown-v3", "drawer-open-v3"])
def test_expert_succeeds_and_moves_what_is_seen(task):
    environment = make(task)
    before = first_frame(environment, 3)
    assert run_expert(environment) is not None
    assert (np.abs(environment.render().astype(int) - before).max(-1) > 40).mean() > 0.03
    environment.close()


def test_the_goal_of_reach_is_seen_where_it_is():
    environment = make("reach-v3")
    for initial_state in range(4):
        frame = first_frame(environment, initial_state).astype(int)
        environment.step(np.zeros(4))
        # The marker stays put; a frame that showed the last episode's goal would differ from the next one there.
        # Blue, which nothing else is: a finger of the gripper is cyan.
        marker = [
            (image[..., 2] > image[..., 0] + 60) & (image[..., 2] > image[..., 1] + 60)
            for image in (frame, environment.render().astype(int))
        ]
        assert marker[0].sum() >= 3
        assert (marker[0] ^ marker[1]).sum() <= 1
    environment.close()


@pytest.mark.parametrize("task", ["reach-v3", "drawer-open-v3", "window-open-v3"])
def test_a_variation_is_the_same_whatever_came_before(task):
    environment, other = make(task), make(task)
    fresh = first_frame(environment, 5)
    state = environment.state
    run_expert(environment, 40)
    first_frame(environment, 6)
    np.testing.assert_array_equal(first_frame(environment, 5), fresh)
    np.testing.assert_array_equal(environment.state, state)
    states_of_expert(other, 9)
    np.testing.assert_array_equal(first_frame(other, 5), fresh)
    for each in (environment, other):
        each.close()


@pytest.mark.parametrize("task", TASKS)
def test_a_variation_is_what_two_whole_resets_of_metaworld_come_to(task):
    environment = make(task)
    simulator = environment._env
    for initial_state in (4, 9, 4):
        frame = first_frame(environment, initial_state)
        state, places, target = environment.state, simulator.model.body_pos.copy(), simulator._target_pos.copy()
        simulator.seed(environment._variation_seed(initial_state))
        for simulator._freeze_rand_vec in (False, True):
            simulator.reset()
        environment._mujoco.mj_forward(simulator.model, simulator.data)
        np.testing.assert_array_equal(environment.render(), frame)
        np.testing.assert_array_equal(simulator._get_obs()[:4].astype(np.float32), state)
        np.testing.assert_array_equal(simulator.model.body_pos, places)
        np.testing.assert_array_equal(simulator._target_pos, target)
    environment.close()


def states_of_expert(environment: MetaworldEnvironment, initial_state: int) -> list[np.ndarray]:
    environment.reset(initial_state)
    states = []
    for _ in range(30):
        environment.step(environment.expert_action())
        states.append(environment.state)
    return states


def test_motion_is_the_same_whether_filmed_or_not_and_whatever_came_before(environment):
    expected = states_of_expert(environment, 2)
    states_of_expert(environment, 3)
    environment.reset(2)
    for state in expected:
        environment.render()
        environment.step(environment.expert_action())
        np.testing.assert_array_equal(environment.state, state)


def test_a_variation_is_the_same_in_another_process(environment, run_python):
    program = (
        "import hashlib\n"
        "from cyclemimic.evaluation.environments.metaworld import MetaworldEnvironment\n"
        f"environment = MetaworldEnvironment({TASK!r}, {SIZE})\n"
        "environment.reset(7)\n"
        "print(hashlib.sha256(environment.render().tobytes()).hexdigest())\n"
        "environment.close()\n"
    )
    process = run_python(program)
    assert process.stdout.split() == [hashlib.sha256(first_frame(environment, 7).tobytes()).hexdigest()]
    assert process.stderr == "", "the simulator is to be silent"


def test_variations_differ(environment):
    frames = {first_frame(environment, initial_state).tobytes() for initial_state in [*range(12), 10_000, 10_001]}
    assert len(frames) == 14


def test_environments_do_not_disturb_each_other():
    # Several scenes in one process, made, used and closed in turn: each must look as it does alone.
    tasks = ["reach-v3", "button-press-topdown-v3", "drawer-open-v3"]
    alone = {}
    for task in tasks:
        environment = make(task)
        alone[task] = first_frame(environment, 1)
        environment.close()
    environments = {task: make(task) for task in tasks}
    for task in tasks:
        environments[task].reset(1)
    for task in tasks:
        np.testing.assert_array_equal(environments[task].render(), alone[task])
    environments.pop("reach-v3").close()
    for task, environment in environments.items():
        np.testing.assert_array_equal(environment.render(), alone[task])
        environment.close()


def test_action_repeat_equals_repeating_the_action(environment):
    repeated = make(action_repeat=3)
    for each in (environment, repeated):
        each.reset(0)
    action = np.array([0.5, -1.0, 0.25, 1.0])
    for _ in range(3):
        environment.step(action)
    repeated.step(action)
    np.testing.assert_array_equal(repeated.state, environment.state)
    repeated.close()


def test_actions_are_clipped(environment):
    states = []
    for scale in (1, 7):
        environment.reset(0)
        environment.step(np.full(4, scale))
        states.append(environment.state)
    np.testing.assert_array_equal(*states)
    assert np.abs(environment.expert_action()).max() <= 1


def test_more_steps_than_metaworld_counts(environment):
    environment.reset(0)
    for _ in range(505):
        environment.step(np.zeros(4))


def test_rendering_after_close_is_an_error(environment):
    environment.reset(0)
    environment.close()
    environment.close()
    with pytest.raises(RuntimeError, match="after `close`"):
        environment.render()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`task` must be one of .*'reach-v3'.*, got 'juggle'"):
        MetaworldEnvironment("juggle")
    with pytest.raises(ValueError, match="`action_repeat` must be at least 1, got 0"):
        MetaworldEnvironment(TASK, action_repeat=0)


@pytest.mark.parametrize(
    ("preparation", "message"),
    [
        ("sys.modules['metaworld'] = None", 'pip install "cyclemimic[sim]"'),
        ("os.environ['MUJOCO_GL'] = 'osmesa'; os.environ['PYOPENGL_PLATFORM'] = 'glx'", "MUJOCO_GL=osmesa"),
        ("os.environ['DISPLAY'] = ':77'; os.environ.pop('MUJOCO_GL', None)", "set MUJOCO_GL=egl"),
        ("os.environ['MUJOCO_GL'] = 'nonsense'", "MUJOCO_GL=nonsense"),
    ],
)
def test_what_is_missing_is_said_in_one_line(run_python, preparation, message):
    make().close()  # skips where nothing works
    program = (
        f"import os, sys\n{preparation}\n"
        "from cyclemimic.evaluation.environments.metaworld import MetaworldEnvironment, SimulatorError\n"
        "try:\n    MetaworldEnvironment('reach-v3')\nexcept SimulatorError as error:\n    print(error)\n"
    )
    output = run_python(program).stdout
    assert message in output and "install" in output and output.count("\n") == 1
