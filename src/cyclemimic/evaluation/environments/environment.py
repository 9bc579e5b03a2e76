# SPDX-License-Identifier: Apache-2.0
"""What every simulated environment can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

# A verb's `--help` comes past here and has no time for it.
if TYPE_CHECKING:
    import numpy as np


class Environment(Protocol):
    """One task of a simulator, as rollouts use it. The same initial state is the same scene, whatever was played before."""

    instruction: str
    """What the policy is told; valid after a reset."""

    @property
    def state(self) -> np.ndarray:
        """What the robot feels of itself, of shape `(state_dim,)`; only read for policies that take it."""

    def reset(self, initial_state: int) -> None:
        """Puts the scene into variation `initial_state`, and begins an episode."""

    def step(self, action: np.ndarray) -> bool | None:
        """Carries out an action `(action_dim,)`; whether the task is done, or `None`: the episode has ended without."""

    def render(self) -> np.ndarray:
        """The scene now: uint8 of shape `(height, width, 3)`, RGB."""

    def close(self) -> None:
        """Frees what it holds; it is not used afterwards."""
