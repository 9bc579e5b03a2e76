# SPDX-License-Identifier: Apache-2.0
"""Any Gymnasium environment, by its id or by where it is made: a simulator of one's own needs nothing else.

What such an environment must give:

- an image, uint8 `(height, width, 3)`, RGB: its observation, the only one in a dictionary of observations, or `render()`;
- actions: a `Box` of one dimension;
- success: `is_success` or `success` in the step's info; where an episode terminates and its infos have had neither, it must be
  said what that is, by `--terminated_is`;
- an instruction: in the info of `reset`, or as an attribute, `instruction`; or by `--instruction`;
- optionally what the robot feels: `state` or `agent_pos` in a dictionary of observations;
- the same episode for the same `reset(seed=...)`, whatever was played before;
- of `reset` an observation and a dictionary, of `step` five values, as Gymnasium has them and Gym had not.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from cyclemimic.evaluation.environments.simulator import Simulator, SimulatorError, UnfitEnvironment

logger = logging.getLogger(__name__)

_STATE_KEYS = ("state", "agent_pos")
_SUCCESS_KEYS = ("is_success", "success")
_DEFAULT_RATE_HZ = 10.0
# NumPy's legacy generators, which many environments draw from, take no larger one.
_SEEDS = 2**32


class GymnasiumEnvironment:
    """
    A Gymnasium environment as an [`Environment`].

    Args:
        task (`str`): `[MODULE:]ID` as `gymnasium.make` reads it, or `MODULE:CALLABLE`, which is called without arguments.
        action_repeat (`int`, *optional*, defaults to 1): Control steps that an action lasts.
        instruction (`str`, *optional*): What the policy is told, instead of the environment's own words.
        terminated_is (`str`, *optional*): `"success"` or `"failure"`, what it is to terminate in an episode whose infos
            do not tell.
        options (*optional*): Further arguments of `gymnasium.make`.

    Raises:
        UnfitEnvironment: there is no such environment, or it lacks what this module's first lines ask for.
        SimulatorError: Gymnasium or the module is not installed.
    """

    def __init__(
        self,
        task: str,
        action_repeat: int = 1,
        instruction: str | None = None,
        terminated_is: str | None = None,
        **options: Any,
    ) -> None:
        self.task, self.action_repeat = task, action_repeat
        self._told, self._terminated_is = instruction, terminated_is
        self._env = _make(task, options)
        self.max_steps, self.control_rate_hz = _length_of(self._env), _rate_of(self._env)
        _check_takes_seed(self._env, task)
        self._actions = _space(self._env, "action_space")
        observations = _space(self._env, "observation_space")
        if len(getattr(self._actions, "shape", None) or ()) != 1 or not np.issubdtype(
            self._actions.dtype, np.floating
        ):
            raise UnfitEnvironment(
                f"`env` must have actions that are a vector of floats, got {self._actions} of {task}."
            )
        self.action_dim = self._actions.shape[0]
        spaces = dict(getattr(observations, "spaces", None) or {})
        images = [key for key, space in spaces.items() if _is_image_space(space)]
        if len(images) > 1:
            raise UnfitEnvironment(f"`env` must have one image in its observations, got {images} of {task}.")
        self._image_key = images[0] if images else None
        self._shows_itself = _is_image_space(observations)
        self._state_key = next(
            (key for key in _STATE_KEYS if len(getattr(spaces.get(key), "shape", None) or ()) == 1), None
        )
        self.state_dim = None if self._state_key is None else spaces[self._state_key].shape[0]
        self._observation: Any = None
        # Of the episode alone: what an environment has played before differs with the number of environments.
        self._tells_success = self._is_playing = False
        self._image_shape: tuple[int, ...] | None = None
        self.instruction = ""

    def reset(self, initial_state: int) -> None:
        """Starts the episode of that seed."""
        self._end_episode()
        self._image_shape = None
        answer = self._env.reset(seed=initial_state % _SEEDS)
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)):
            raise UnfitEnvironment(
                f"`env` must return an observation and a dictionary of `reset`, got {_kind(answer)} of {self.task}."
            )
        self._observation, information = answer
        self._tells_success = any(key in information for key in _SUCCESS_KEYS)
        told = self._told or information.get("instruction") or _attribute(self._env, "instruction")
        if told is None:
            raise UnfitEnvironment(f"`instruction` must be given for {self.task}, which has none of its own.")
        if not isinstance(told, str) or not told.strip():
            got = repr(told) if isinstance(told, str) else _kind(told)
            raise UnfitEnvironment(f"`instruction` must be a text, got {got} of {self.task}.")
        self.instruction = told

    def step(self, action: np.ndarray) -> bool | None:
        """Moves; whether the task was solved on the way, `None` where the episode has ended without."""
        action = np.asarray(action, dtype=self._actions.dtype).clip(self._actions.low, self._actions.high)
        self._is_playing = True
        for _ in range(self.action_repeat):
            answer = self._env.step(action)
            if not (isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[4], Mapping)):
                raise UnfitEnvironment(
                    "`env` must return five values of `step`, observation, reward, terminated, truncated and a "
                    f"dictionary, got {_kind(answer)} of {self.task}."
                )
            self._observation, information = answer[0], answer[4]
            terminated, truncated = self._truth("terminated", answer[2]), self._truth("truncated", answer[3])
            said = [self._truth(key, information[key]) for key in _SUCCESS_KEYS if key in information]
            self._tells_success |= bool(said)
            if any(said) or (terminated and not self._tells_success and self._is_success_to_terminate()):
                self._is_playing = False
                return True
            if terminated or truncated:
                self._end_episode()
                return None
        return False

    def _end_episode(self) -> None:
        """Of an episode that has not succeeded; whose steps ran out is told by the next `reset`, or by `close`."""
        # Some say a word of success only where there is one, so that this is no error.
        if self._is_playing and not self._tells_success and self._terminated_is is None:
            _warn_of_silence(self.task)
        self._is_playing = False

    def _is_success_to_terminate(self) -> bool:
        if self._terminated_is is None:
            raise UnfitEnvironment(
                f"`terminated_is` must say what it is when {self.task} terminates in an episode without `is_success` or "
                "`success` in its infos, success or failure, got neither."
            )
        return self._terminated_is == "success"

    def _truth(self, name: str, value: Any) -> bool:
        # NumPy's numbers and arrays of one number, too. Whatever else is true to Python, such as "no", may mean failure.
        said = np.asarray(value)
        if said.size != 1 or said.dtype.kind not in "biuf" or said.item() not in (0, 1):
            is_plain = isinstance(value, str | float | int | np.generic)
            raise UnfitEnvironment(
                f"`env` must return one truth value as `{name}` of `step`, True or False, 1 or 0, "
                f"got {repr(value) if is_plain else _kind(value)} of {self.task}."
            )
        return bool(said.item())

    def render(self) -> np.ndarray:
        """The image now: uint8 of shape `(height, width, 3)`, the same all through an episode."""
        if self._shows_itself:
            image = self._observation
        else:
            image = self._drawn() if self._image_key is None else self._observation[self._image_key]
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise UnfitEnvironment(
                f"`env` must show uint8 images (height, width, 3), got {image.dtype} {image.shape} of {self.task}."
            )
        if self._image_shape not in (None, image.shape):
            raise UnfitEnvironment(
                f"`env` must show images of one size in an episode, got {image.shape} after {self._image_shape} of "
                f"{self.task}."
            )
        self._image_shape = image.shape
        return np.array(image)  # its own: some environments draw into one buffer

    def _drawn(self) -> Any:
        try:
            return self._env.render()
        except NotImplementedError as error:
            raise UnfitEnvironment(
                "`env` must show uint8 images (height, width, 3), in its observations or by `render`, which "
                f"{self.task} lacks, got observations {_space(self._env, 'observation_space')}."
            ) from error

    @property
    def state(self) -> np.ndarray:
        """What the robot feels: float32 of shape `(state_dim,)`."""
        return np.asarray(self._observation[self._state_key], dtype=np.float32)

    def close(self) -> None:
        """Ends the environment."""
        self._end_episode()
        self._env.close()


def open_simulator(
    names: str, image_size: int | None, instruction: str | None, terminated_is: str | None = None
) -> Simulator:
    """The environment `names`; it is made once, and looked at, to say now what would fail in every trial."""
    if image_size is not None:
        raise ValueError(f"`image_size` must be left out for gym, whose environments decide, got {image_size}.")
    make_environment = partial(GymnasiumEnvironment, instruction=instruction, terminated_is=terminated_is)
    return describe((names,), make_environment)


def describe(tasks: tuple[str, ...], make_environment: Callable[..., GymnasiumEnvironment]) -> Simulator:
    """What rollouts need to know, of an environment that is made once.

    Raises:
        SimulatorError, UnfitEnvironment: As [`GymnasiumEnvironment`].
        RuntimeError: The environment's own code failed.
    """
    environment = make_environment(tasks[0])
    try:
        try:
            environment.reset(0)
            environment.render()
        except (SimulatorError, UnfitEnvironment):
            raise
        # Of which the command line would show one line, and not where in the user's code it was raised.
        except (ValueError, OSError) as error:
            raise RuntimeError(f"a simulated environment failed: {type(error).__name__}: {error}") from error
        return Simulator(
            tasks=tasks,
            make_environment=make_environment,
            action_dim=environment.action_dim,
            max_steps=environment.max_steps,
            control_rate_hz=environment.control_rate_hz or _DEFAULT_RATE_HZ,
            tells_rate=environment.control_rate_hz is not None,
            state_dim=environment.state_dim,
        )
    finally:
        environment.close()


@cache
def _warn_of_silence(task: str) -> None:
    logger.warning(
        "an episode of %s ended without `is_success` or `success` in its infos, and counts as failed, as all such do",
        task,
    )


def _make(task: str, options: dict[str, Any]) -> Any:
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise SimulatorError('gymnasium is not installed: pip install "cyclemimic[gym]"') from error
    module, colon, attribute = task.partition(":")
    try:
        make = getattr(importlib.import_module(module), attribute, None) if colon else None
        env = make() if callable(make) else gymnasium.make(task, render_mode="rgb_array", **options)
    except ModuleNotFoundError as error:
        raise SimulatorError(
            f"`env` names {task}, for which {error.name} is neither installed nor on PYTHONPATH"
        ) from error
    except (gymnasium.error.Error, TypeError, ValueError, ImportError) as error:
        raise UnfitEnvironment(f"`env` must name an environment that can be made, got {task}: {error}") from error
    if not isinstance(env, gymnasium.Env):
        raise UnfitEnvironment(f"`env` must name a gymnasium.Env or what returns one, got {_kind(env)} of {task}.")
    return env


def _check_takes_seed(env: Any, task: str) -> None:
    # Of the environment itself too: the `reset` of what Gymnasium wraps it in takes anything.
    for reset in (inspect.signature(env.reset), inspect.signature(env.unwrapped.reset)):
        try:
            reset.bind(seed=0)
        except TypeError as error:
            raise UnfitEnvironment(
                f"`env` must have a `reset` that takes `seed`, got reset{reset} of {task}."
            ) from error


def _kind(value: Any) -> str:
    """What something is, in a word or two."""
    if value is None:
        return "None"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(type(part).__name__ for part in value)})"
    shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
    return f"{type(value).__module__}.{type(value).__qualname__}{shape}".removeprefix("builtins.")


def _space(env: Any, name: str) -> Any:
    # Gymnasium declares both spaces, and sets none.
    return getattr(env, name, None)


def _is_image_space(space: Any) -> bool:
    shape: tuple[int, ...] = getattr(space, "shape", None) or ()
    return getattr(space, "dtype", None) == np.uint8 and len(shape) == 3 and shape[-1] == 3


def _length_of(env: Any) -> int | None:
    return None if env.spec is None else env.spec.max_episode_steps


def _rate_of(env: Any) -> float | None:
    rate_hz = (env.metadata or {}).get("render_fps")
    return float(rate_hz) if rate_hz else None


def _attribute(env: Any, name: str) -> Any:
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
