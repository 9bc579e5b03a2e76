# SPDX-License-Identifier: Apache-2.0
"""Metaworld's Sawyer tasks, filmed by one fixed camera, the same for data and for evaluation."""

from __future__ import annotations

import os
import sys
import warnings
import zlib
from functools import partial
from typing import Any

import numpy as np

from cyclemimic.evaluation.environments.offscreen import OffscreenRenderer
from cyclemimic.evaluation.environments.scene_look import SceneLook
from cyclemimic.evaluation.environments.simulator import Simulator, SimulatorError, refuse_instruction

TASKS = {
    "reach-v3": "reach the blue ball",
    "button-press-topdown-v3": "press the button from above",
    "button-press-v3": "press the button from the front",
    "drawer-open-v3": "open the drawer",
    "drawer-close-v3": "close the drawer",
    "door-open-v3": "open the door",
    "door-close-v3": "close the door",
    "window-open-v3": "open the window",
    "window-close-v3": "close the window",
    "faucet-open-v3": "open the faucet",
    "faucet-close-v3": "close the faucet",
    "handle-press-v3": "press the handle down",
    "coffee-button-v3": "press the button of the coffee machine",
    "plate-slide-v3": "slide the plate into the goal",
    "push-v3": "push the puck to the green ball",
    "pick-place-v3": "lift the puck to the blue ball",
}
"""Tasks and their instructions."""

CONTROL_RATE_HZ = 80
MAX_STEPS = 200

# A view of the table from the robot's front right, close enough that hand and objects are large at 128 × 128.
_CAMERA = {"lookat": (0.03, 0.68, 0.13), "distance": 1.15, "azimuth": 135.0, "elevation": -35.0}
# Where to `reach` is told by Metaworld's own marker alone, which as it comes is a pixel wide and as red as the arm. In
# other tasks it shows where a handle is to go.
_GOAL_MARKER = {"radius": 0.035, "rgba": (0.1, 0.3, 1.0, 1.0)}


class MetaworldEnvironment:
    """
    One task of Metaworld, with another look in every variation ([`SceneLook`]). Images leave it only through `render`,
    simulator state only through `state`, which recordings keep as proprioception and a policy may read; of all else in the
    simulator the expert reads, a policy nothing.

    Args:
        task (`str`): One of `TASKS`.
        image_size (`int`, *optional*, defaults to 128): Height and width of a frame, in pixels.
        action_repeat (`int`, *optional*, defaults to 1): Control steps that an action lasts. Recording and evaluation
            must agree on it.

    Raises:
        ValueError: an unknown task, or `action_repeat` below 1.
        SimulatorError: Metaworld or a graphics library is missing.
    """

    def __init__(self, task: str, image_size: int = 128, action_repeat: int = 1) -> None:
        if task not in TASKS:
            raise ValueError(f"`task` must be one of {sorted(TASKS)}, got {task!r}.")
        if action_repeat < 1:
            raise ValueError(f"`action_repeat` must be at least 1, got {action_repeat}.")
        self.task = task
        self.instruction = TASKS[task]
        self.image_size = image_size
        self.action_repeat = action_repeat
        self._mujoco, environments, policies = _import_simulator()
        self._env = environments[task]()
        # What Metaworld's own benchmark wrappers set: goals visible to the expert, variations drawn from our seed.
        self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)  # cached for hidden goals
        self._env._set_task_called = True
        self._env.seeded_rand_vec = True
        self._expert = policies[task]()
        self._observation: Any = None
        self._look = SceneLook(self._env.model)
        self._renderer = self._make_renderer()

    def reset(self, initial_state: int) -> None:
        """
        Puts the scene into variation `initial_state` (0, 1, …), the same at every call: places of objects and goal,
        colours and light.
        """
        seed = self._variation_seed(initial_state)
        self._look.draw(np.random.default_rng(seed))
        self._env.seed(seed)
        self._draw_places()
        self._mujoco.mj_resetData(self._env.model, self._env.data)
        self._env.reset_model()
        # Places set last are not in the kinematics yet: the first frame and observation would show the ones before.
        self._mujoco.mj_forward(self._env.model, self._env.data)
        self._env._prev_obs = self._env._get_curr_obs_combined_no_goal()
        self._observation = self._env._get_obs()

    def step(self, action: np.ndarray) -> bool:
        """
        Moves for `action_repeat` control steps of 1/80 s.

        Args:
            action (`np.ndarray` of shape `(4,)`): Hand velocity in x, y, z and gripper effort, clipped to [-1, 1].

        Returns:
            `bool`: Whether the task was solved on the way.
        """
        action = np.clip(np.asarray(action, dtype=np.float32), -1, 1)
        success = False
        for _ in range(self.action_repeat):
            self._observation, _, _, _, information = self._env.step(action)
            # Metaworld ends an episode by a count of its own, and refuses steps after it.
            self._env.curr_path_length = 0
            success |= bool(information["success"])
        return success

    def render(self) -> np.ndarray:
        """The scene now: uint8 of shape `(image_size, image_size, 3)`, RGB, upright."""
        return self._renderer.render(self._env.data)

    @property
    def state(self) -> np.ndarray:
        """Hand position in metres and gripper opening in [0, 1]: float32 of shape `(4,)`."""
        return np.asarray(self._observation[:4], dtype=np.float32)

    def expert_action(self) -> np.ndarray:
        """What Metaworld's scripted expert does now: float32 of shape `(4,)` in [-1, 1]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its gains are large on purpose, and it says so at every step
            action = self._expert.get_action(self._observation)
        return np.clip(np.asarray(action, dtype=np.float32), -1, 1)

    def close(self) -> None:
        """Frees the renderer; the environment cannot be used afterwards."""
        self._renderer.close()

    def _draw_places(self) -> None:
        """
        Puts the model into the variation drawn, and holds it. Metaworld computes parts of a reset from where things were
        before it; the reset after this one starts from the right places, whatever this environment did before.
        """
        move_hand = self._env._reset_hand
        self._env._reset_hand = lambda steps=0: move_hand(0)  # nearly all of a reset's time, and no part of the places
        self._env._freeze_rand_vec = False
        self._env.reset()
        self._env._freeze_rand_vec = True
        self._env.reset_model()
        del self._env._reset_hand

    def _variation_seed(self, initial_state: int) -> int:
        # Hashed, so that neither neighbours nor tasks share draws.
        sequence = np.random.SeedSequence([zlib.crc32(self.task.encode()), initial_state])
        return int(sequence.generate_state(1)[0])

    def _make_renderer(self) -> OffscreenRenderer:
        goal = self._mujoco.mj_name2id(self._env.model, self._mujoco.mjtObj.mjOBJ_SITE, "goal")
        if goal >= 0:
            self._env.model.site_size[goal] = _GOAL_MARKER["radius"]
            self._env.model.site_rgba[goal] = _GOAL_MARKER["rgba"]
        camera = self._mujoco.MjvCamera()
        for name, value in _CAMERA.items():
            setattr(camera, name, value)
        try:
            return OffscreenRenderer(self._env.model, self.image_size, camera)
        except Exception as error:  # every backend fails in its own way
            raise SimulatorError(_graphics_message(error)) from error


def open_simulator(names: str, image_size: int | None, instruction: str | None) -> Simulator:
    """Tasks with commas between them, each once."""
    tasks = tuple(dict.fromkeys(names.split(",")))
    unknown = [task for task in tasks if task not in TASKS]
    if unknown:
        raise ValueError(f"`env` must name tasks out of {sorted(TASKS)}, got {unknown[0]!r}.")
    refuse_instruction(instruction, "metaworld")
    size: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    return Simulator(
        tasks=tasks,
        make_environment=partial(MetaworldEnvironment, **size),
        action_dim=4,
        max_steps=MAX_STEPS,
        control_rate_hz=CONTROL_RATE_HZ,
        state_dim=4,
        repeats_actions=True,
    )


def _import_simulator() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # read once, when mujoco is imported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mujoco
            from metaworld.env_dict import ENV_CLS_MAP
            from metaworld.policies import ENV_POLICY_MAP
    except ModuleNotFoundError as error:
        raise SimulatorError(
            f'the simulator is not installed ({error.name} is missing): pip install "cyclemimic[sim]"'
        ) from error
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise SimulatorError(_graphics_message(error)) from error
    return mujoco, ENV_CLS_MAP, ENV_POLICY_MAP


def _graphics_message(error: Exception) -> str:
    backend = os.environ.get("MUJOCO_GL")
    choice = f"with MUJOCO_GL={backend}" if backend else "on the screen of DISPLAY"
    remedy = "" if backend == "egl" else "set MUJOCO_GL=egl, which needs no screen; "
    return (
        f"the simulator cannot render {choice} ({type(error).__name__}); {remedy}on Debian: apt-get install libegl1 "
        "libopengl0 libgl1-mesa-dri"
    )
