# SPDX-License-Identifier: Apache-2.0
"""PushT of gym-pusht: a disc pushes a T onto its outline. Actions are the place to go to, in pixels of 512 × 512."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from cyclemimic.evaluation.environments.gymnasium import GymnasiumEnvironment, describe
from cyclemimic.evaluation.environments.simulator import Simulator, SimulatorError

_INSTRUCTION = "push the T onto its outline"
_IMAGE_SIZE = 96


class PushTEnvironment(GymnasiumEnvironment):
    """
    PushT; a policy may read where the disc is, of size 2. A trial lasts at most 300 steps of 0.1 s.

    Args:
        task (`str`): `"pusht"`.
        action_repeat, instruction: As in [`GymnasiumEnvironment`].
        image_size (`int`, *optional*, defaults to 96): Height and width of a frame, in pixels.
    """

    def __init__(
        self, task: str, action_repeat: int = 1, instruction: str = _INSTRUCTION, image_size: int = _IMAGE_SIZE
    ) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame would look for a screen
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        size: dict[str, Any] = {"observation_width": image_size, "observation_height": image_size}
        try:
            super().__init__(
                "gym_pusht:gym_pusht/PushT-v0", action_repeat, instruction, obs_type="pixels_agent_pos", **size
            )
        except SimulatorError as error:
            raise SimulatorError('PushT is not installed: pip install "cyclemimic[pusht]"') from error
        except ValueError as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            # Of OpenCV, which gym-pusht imports, and which looks for a screen's libraries.
            raise SimulatorError(
                f"PushT cannot run here ({error.__cause__}); on Debian: apt-get install libgl1 libglib2.0-0"
            ) from error


def open_simulator(names: str, image_size: int | None, instruction: str | None) -> Simulator:
    """PushT, the only task."""
    flags = {"image_size": image_size, "instruction": instruction}
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    return describe(("pusht",), partial(PushTEnvironment, **given))
