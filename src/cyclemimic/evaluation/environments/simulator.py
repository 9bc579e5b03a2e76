# SPDX-License-Identifier: Apache-2.0
"""Simulators by name: what the rollouts need to know of one, and where each is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from cyclemimic.evaluation.environments.environment import Environment


class SimulatorError(ValueError):
    """The simulator cannot run here; the message is one line that says what to install."""


class UnfitEnvironment(ValueError):
    """An environment does not give what rollouts ask of it; the message is one line that names it, and what it gave."""


@dataclass(frozen=True)
class Simulator:
    """
    Tasks of one simulator.

    Args:
        tasks (`tuple[str, ...]`): Their names.
        make_environment (`Callable`): From a task and the keyword `action_repeat`, control steps an action lasts, to an
            [`Environment`].
        action_dim (`int`): Size of an action.
        max_steps (`int`, *optional*): Control steps after which a trial has failed.
        control_rate_hz (`float`): Control steps a second.
        tells_rate (`bool`, *optional*, defaults to `True`): Whether that is the simulator's word, and not a guess.
        state_dim (`int`, *optional*): Size of `state`, what the robot feels of itself.
        num_states (`int`, *optional*): How many initial states there are, the same for every seed; `None`: any number.
        repeats_actions (`bool`, *optional*, defaults to `False`): Whether an action lasts as long as a frame of the
            demonstrations, instead of one control step.
        one_a_process (`bool`, *optional*, defaults to `False`): Whether a process can hold one environment only.
        accepts_gripper (`bool`, *optional*, defaults to `False`): Whether `make_environment` takes `gripper_opens_at_one`.
    """

    tasks: tuple[str, ...]
    make_environment: Callable[..., Environment]
    action_dim: int
    max_steps: int | None
    control_rate_hz: float
    state_dim: int | None = None
    num_states: int | None = None
    tells_rate: bool = True
    repeats_actions: bool = False
    one_a_process: bool = False
    accepts_gripper: bool = False


FORMS = {
    "metaworld": "metaworld:TASK[,TASK...]",
    "pusht": "pusht",
    "libero": "libero:SUITE",
    "gym": "gym:[MODULE:]ID or gym:MODULE:CALLABLE",
}
"""What `env` may be."""

# A module each, with a function `open_simulator(names, image_size, instruction)`; that of `gymnasium` takes `terminated_is`, too.
_MODULES = {"metaworld": "metaworld", "pusht": "pusht", "libero": "libero", "gym": "gymnasium"}


def open_simulator(
    env: str, image_size: int | None = None, instruction: str | None = None, terminated_is: str | None = None
) -> Simulator:
    """
    The simulator of that name.

    Args:
        env (`str`): One of `FORMS`.
        image_size (`int`, *optional*): Pixels of the camera, by default the simulator's.
        instruction (`str`, *optional*): What the policy is told, where the simulator has no words of its own.
        terminated_is (`str`, *optional*): Of `gym`, what it is to terminate where that is not told, `"success"` or
            `"failure"`.

    Raises:
        ValueError: no such simulator or task, or one that has no use for an argument.
        SimulatorError: it is not installed here.
    """
    name, colon, names = env.partition(":")
    if name not in FORMS or bool(colon) != (":" in FORMS[name]) or bool(colon) != bool(names):
        raise ValueError(f"`env` must be {', '.join(FORMS.values())}; got {env!r}.")
    module = importlib.import_module(f"cyclemimic.evaluation.environments.{_MODULES[name]}")
    if name == "gym":
        return module.open_simulator(names, image_size, instruction, terminated_is)
    if terminated_is is not None:
        raise ValueError(f"`terminated_is` must be left out for {name}, which tells success, got {terminated_is!r}.")
    return module.open_simulator(names, image_size, instruction)


def refuse_instruction(instruction: str | None, simulator: str) -> None:
    """Raises `ValueError` if there is an instruction, for simulators whose tasks have their own."""
    if instruction is not None:
        raise ValueError(
            f"`instruction` must be left out for {simulator}, whose tasks have theirs, got {instruction!r}."
        )
