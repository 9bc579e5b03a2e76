# SPDX-License-Identifier: Apache-2.0
"""How a simulated scene looks: other colours and another light in every variation, as in videos from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

# Enough that a few demonstrations do not show what the next scene looks like; the hand and what it is to move stay
# apart from their background.
_TINT = (0.5, 1.0)
_BRIGHTNESS = (0.7, 1.3)


class SceneLook:
    """
    Colours of all materials and brightness of all lights, drawn anew around how they came.

    Args:
        model (`mujoco.MjModel`): The scene; its colours and lights are changed.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._colors = model.mat_rgba[:, :3].copy()
        self._lights = model.light_diffuse.copy()

    def draw(self, random: np.random.Generator) -> None:
        """Gives the scene another look; only `random` decides which."""
        self._model.mat_rgba[:, :3] = self._colors * random.uniform(*_TINT, self._colors.shape)
        self._model.light_diffuse[:] = self._lights * random.uniform(*_BRIGHTNESS)
