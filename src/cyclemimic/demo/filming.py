# SPDX-License-Identifier: Apache-2.0
"""Films scripted experts. Recording runs it in processes of its own, so it imports the simulator and little else."""

from __future__ import annotations

import atexit
import zlib
from dataclasses import dataclass

import numpy as np

from cyclemimic.evaluation.environments.metaworld import CONTROL_RATE_HZ, MAX_STEPS, MetaworldEnvironment

STEPS_AFTER_SUCCESS = 5
# A failed attempt is made again in another variation, below those from 500,000 on that evaluation uses. Of experts that are
# pushed three times a second, half fail at opening a drawer.
_RETRY_STRIDE = 20_011
_MAX_ATTEMPTS = 20
_PUSH_STEPS = (8, 17)


@dataclass(frozen=True)
class Shot:
    """
    One episode to film.

    Args:
        task (`str`): Task of Metaworld.
        initial_state (`int`): Variation of the scene.
        push_rate (`float`): How often a second the expert is pushed off its way, for 0.1 to 0.2 s in a random direction.
            Pushes show the same scene with other actions, and how to come back.
        noise (`float`): Standard deviation of Gaussian noise on each action.
        labelled (`bool`): Kept with the episode: whether its actions may be learned from.
    """

    task: str
    initial_state: int
    push_rate: float = 0.0
    noise: float = 0.0
    labelled: bool = False


@dataclass(frozen=True, eq=False)
class FilmedEpisode:
    """Frame `i`, uint8 `(n, size, size, 3)`, shows the scene before action `i`, float32 `(n, 4)`; states likewise."""

    frames: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    initial_state: int


_environments: dict[tuple[str, int, int], MetaworldEnvironment] = {}


def film(shot: Shot, image_size: int, action_repeat: int = 1) -> FilmedEpisode:
    """Films one shot in this process; every attempt that fails is repeated in another variation."""
    environment = _environment(shot.task, image_size, action_repeat)
    for attempt in range(_MAX_ATTEMPTS):
        initial_state = shot.initial_state + attempt * _RETRY_STRIDE
        actions = _attempt(environment, shot, initial_state)
        if actions is not None:
            return _film(environment, actions, initial_state)
    raise RuntimeError(f"the expert of {shot.task} failed {_MAX_ATTEMPTS} times from state {shot.initial_state}")


def _environment(task: str, image_size: int, action_repeat: int) -> MetaworldEnvironment:
    """The environment of task, image size and action repeat. All are kept: to make one takes a second, and not all of the
    memory that it takes comes back when it is closed."""
    wanted = task, image_size, action_repeat
    if wanted not in _environments:
        _environments[wanted] = MetaworldEnvironment(*wanted)
        atexit.register(_environments[wanted].close)
    return _environments[wanted]


def _attempt(environment: MetaworldEnvironment, shot: Shot, initial_state: int) -> np.ndarray | None:
    """The actions up to shortly after success, `(n, 4)`; `None` where the expert failed. Nothing is rendered."""
    random = np.random.default_rng((initial_state, zlib.crc32(shot.task.encode())))
    environment.reset(initial_state)
    actions: list[np.ndarray] = []
    repeat = environment.action_repeat
    steps_left, push_left, push = MAX_STEPS // repeat, 0, np.zeros(3)
    success = False
    while steps_left > 0:
        action = environment.expert_action() + shot.noise * random.normal(size=4) * (1, 1, 1, 0)
        if push_left == 0 and random.random() < shot.push_rate * repeat / CONTROL_RATE_HZ:
            push_left, push = max(1, int(random.integers(*_PUSH_STEPS)) // repeat), random.uniform(-1, 1, 3)
        if push_left > 0:
            push_left -= 1
            action[:3] = push
        actions.append(np.clip(action, -1, 1).astype(np.float32))
        reached = environment.step(actions[-1])
        steps_left -= 1
        if reached and not success:
            success, steps_left = True, min(steps_left, STEPS_AFTER_SUCCESS)
    return np.stack(actions) if success else None


def _film(environment: MetaworldEnvironment, actions: np.ndarray, initial_state: int) -> FilmedEpisode:
    """The same once more with the camera on: rendering takes most of the time, and failures are not worth it."""
    environment.reset(initial_state)
    frames, states = [], []
    for action in actions:
        frames.append(environment.render())
        states.append(environment.state)
        environment.step(action)
    return FilmedEpisode(np.stack(frames), actions, np.stack(states), initial_state)
