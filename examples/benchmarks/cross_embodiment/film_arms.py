# SPDX-License-Identifier: Apache-2.0
"""Films one robosuite arm that moves without a task, or to a ball, a file an episode. `record.py` runs it, in robosuite's environment.

All bodies obey one controller: deltas of the end effector in metres along the world's axes, with the same gains.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import robosuite
import robosuite.macros
from motion import FPS, Sector, sample_path
from robosuite.controllers import load_composite_controller_config
from stage import Camera, change_surroundings, check_frames, check_upright

_PHYSICS_STEP_S = 0.004  # the arms move as with robosuite's own 0.002, twice as fast
_MAX_DELTA = 0.1  # metres a step
_STIFFNESS = 400.0  # 1/s^2; the end effector follows within about 1 cm
_APPROACH_STEPS = 15  # from the pose that all episodes begin with to the start of the path
_RUN_UP_STEPS = 4  # in which the arm comes to speed
_MAX_ERROR = 0.04  # metres from the commanded position; above, the arm is at a limit
_MAX_ATTEMPTS = 20


@dataclass(frozen=True, eq=False)
class FilmedEpisode:
    """Frame `i`, uint8 `(n, size, size, 3)`, and state `i` `(n, 3)` are from before action `i`, float32 `(n, 3)`."""

    frames: np.ndarray
    actions: np.ndarray
    states: np.ndarray


class Arm:
    """
    A body on its mount behind an empty table.

    Args:
        body (`str`): Robot of robosuite.
        image_size (`int`): Height and width of a frame, in pixels.
    """

    def __init__(self, body: str, image_size: int) -> None:
        robosuite.macros.SIMULATION_TIMESTEP = _PHYSICS_STEP_S
        self._environment = robosuite.make(
            "Lift",
            robots=body,
            controller_configs=_controller_config(body),
            initialization_noise=None,
            has_renderer=False,
            has_offscreen_renderer=False,  # its contexts give noise after resets; `Camera` has its own
            use_camera_obs=False,
            use_object_obs=False,
            control_freq=FPS,
            hard_reset=False,
            ignore_done=True,
            seed=0,
        )
        self.model, self.data = self._environment.sim.model._model, self._environment.sim.data._data
        self.model.geom("cube_g0_vis").group = 0  # hidden; `reset` puts it out of reach
        self.camera = Camera(self.model, image_size)
        self._goal = np.zeros(3)
        self.reset()

    @property
    def position(self) -> np.ndarray:
        """Of the end effector, in metres of the world."""
        return np.array(self._controller.ref_pos)

    @property
    def _controller(self) -> Any:
        return self._environment.robots[0].part_controllers["right"]

    def reset(self) -> None:
        """Brings the body to its first pose, and the cube of the Lift task to the floor under the table."""
        self._environment.reset()
        # Deltas add to the commanded position, so that errors of one step are made good in the next.
        self._controller.set_goal_update_mode("desired")
        cube = self.model.body("cube_main").jntadr[0]
        self.data.qpos[self.model.jnt_qposadr[cube] :][:3] = 0, 0, 0.03
        self._goal = np.array(self._controller.goal_pos)

    def step(self, delta: np.ndarray) -> None:
        """Commands a move of `delta` metres, `(3,)`, and waits for `1 / FPS` seconds. The gripper stays as it is."""
        action = np.zeros(self._environment.action_dim)
        action[:3] = delta / _MAX_DELTA
        self._goal += delta
        # What `environment.step` does besides observations and rewards, which take half of its time.
        simulation = self._environment.sim
        for substep in range(round(1 / FPS / _PHYSICS_STEP_S)):
            simulation.step1()
            self._environment._pre_action(action, policy_step=substep == 0)
            simulation.step2()
        simulation.forward()
        self._controller.update(force=True)

    def follow(self, path: np.ndarray, is_filmed: bool, ball: np.ndarray | None = None) -> FilmedEpisode | None:
        """
        Steps from point to point; `None` if the arm cannot, at a limit of its joints.

        Args:
            path (`np.ndarray` of shape `(num_steps + 1, 3)`): Commanded positions.
            is_filmed (`bool`): Render; else `frames` is empty.
            ball (`np.ndarray` of shape `(3,)`, *optional*): Where frames show a ball.
        """
        frames, states, actions = [], [], np.diff(path, axis=0).astype(np.float32)
        for delta in actions:
            if np.abs(self.position - self._goal).max() > _MAX_ERROR:
                return None
            if is_filmed:
                frames.append(self.camera.render(self.data, ball))
            states.append(self.position)
            self.step(delta)
        return FilmedEpisode(np.array(frames, dtype=np.uint8), actions, np.array(states, dtype=np.float32))

    def approach(self, start: np.ndarray) -> None:
        """Goes from the first pose to `start`, slow at both ends."""
        ramp = np.linspace(0, 1, _APPROACH_STEPS + 1)
        way = start - self._goal
        for share in np.diff(ramp**2 * (3 - 2 * ramp)):
            self.step(share * way)


def _controller_config(body: str) -> dict[str, Any]:
    config = load_composite_controller_config(robot=body)
    config["body_parts"] = {"right": config["body_parts"]["right"]}
    limit = [_MAX_DELTA] * 3
    config["body_parts"]["right"] |= {
        "type": "OSC_POSITION",
        "input_ref_frame": "world",
        "kp": _STIFFNESS,
        # The orientation is held meanwhile; treated apart from the position, it pushes some bodies off by centimetres.
        "uncouple_pos_ori": False,
        "output_max": limit,
        "output_min": [-value for value in limit],
    }
    return config


def film(arm: Arm, random: np.random.Generator, num_frames: int, sector: Sector, shows_goal: bool) -> FilmedEpisode:
    """One episode along a random path, with a ball at its end or without; another path where the arm cannot follow."""
    for _ in range(_MAX_ATTEMPTS):
        path = sample_path(random, _RUN_UP_STEPS + num_frames, sector)
        arm.reset()
        change_surroundings(arm.model, random)
        path = _with_run_up(path)
        arm.approach(path[0])
        if arm.follow(path[: _RUN_UP_STEPS + 1], is_filmed=False) is None:
            continue
        episode = arm.follow(path[_RUN_UP_STEPS:], is_filmed=True, ball=path[-1] if shows_goal else None)
        if episode is not None:
            check_frames(episode.frames, episode.states)
            return episode
    raise RuntimeError(f"no path could be followed in {_MAX_ATTEMPTS} attempts; the workspace is out of reach")


def _with_run_up(path: np.ndarray) -> np.ndarray:
    """The same with its first steps shorter and shorter towards the start; the start moves, the rest does not."""
    steps = np.diff(path[: _RUN_UP_STEPS + 1], axis=0) * np.linspace(0.2, 1, _RUN_UP_STEPS)[:, None]
    start = path[_RUN_UP_STEPS] - np.cumsum(steps[::-1], axis=0)[::-1]
    return np.concatenate([start, path[_RUN_UP_STEPS:]])


def episode_seed(seed: int, body: str, split: str, episode: int) -> np.random.Generator:
    """Chance of one episode, whatever was filmed before it."""
    return np.random.default_rng([seed, zlib.crc32(body.encode()), zlib.crc32(split.encode()), episode])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--image_size", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--sector", type=float, nargs=3, required=True, help="centre, half width, depth share")
    parser.add_argument("--goal", action="store_true")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    # Only the lines for `record.py` may go to standard output; robosuite prints to it now and then.
    lines, sys.stdout = sys.stdout, sys.stderr
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    arm = Arm(arguments.body, arguments.image_size)
    check_upright(arm.model, arm.data, arm.camera)
    for index in range(arguments.episodes):
        random = episode_seed(arguments.seed, arguments.body, arguments.split, index)
        episode = film(arm, random, arguments.frames, Sector(*arguments.sector), arguments.goal)
        path = arguments.output / f"{index}.npz"
        np.savez(path, frames=episode.frames, actions=episode.actions, states=episode.states)
        print(json.dumps({"file": path.name}), file=lines, flush=True)
    arm.camera.close()


if __name__ == "__main__":
    main()
