# SPDX-License-Identifier: Apache-2.0
"""Renders MuJoCo scenes without a screen, fast, and right for several scenes in one process."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import mujoco

_MAX_GEOMETRIES = 2000
_context: Any = None


class OffscreenRenderer:
    """
    Films one scene with one camera. Shadows, reflections, haze, sky and multisampling are off, which makes it 20 times
    faster on a CPU. `mujoco.Renderer` makes an OpenGL context each and frees it before what lives in it, after which
    other scenes' frames have been seen to be noise or stale. Here a process has one context, freed last.

    Args:
        model (`mujoco.MjModel`): The scene; its visual settings are changed.
        size (`int`): Height and width of a frame, in pixels.
        camera (`mujoco.MjvCamera`): From where it is seen.
    """

    def __init__(self, model: mujoco.MjModel, size: int, camera: mujoco.MjvCamera) -> None:
        import mujoco  # an extra; the module itself must import without it

        self._mujoco = mujoco
        self._resources: Any = None
        self._model, self._camera = model, camera
        _simplify(model, size)
        _make_current(size)
        self._resources = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMETRIES)
        for flag in ("SHADOW", "REFLECTION", "HAZE", "SKYBOX"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self._options = mujoco.MjvOption()
        self._viewport = mujoco.MjrRect(0, 0, size, size)

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """The scene in state `data`: uint8 of shape `(size, size, 3)`, RGB, upright.

        Raises:
            RuntimeError: after `close`.
        """
        if self._resources is None:
            raise RuntimeError("`render` was called after `close`")
        _make_current(self._viewport.width)
        self._mujoco.mjr_setBuffer(self._mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._resources)
        self._mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._camera, self._mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        self._mujoco.mjr_render(self._viewport, self._scene, self._resources)
        image = np.empty((self._viewport.height, self._viewport.width, 3), dtype=np.uint8)
        self._mujoco.mjr_readPixels(image, None, self._viewport, self._resources)
        return np.ascontiguousarray(image[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Frees what the scene holds in the graphics library; a second call does nothing."""
        if self._resources is not None and _context is not None:
            _make_current(self._viewport.width)
            self._resources.free()
        self._resources = None


def _simplify(model: mujoco.MjModel, size: int) -> None:
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0


def _make_current(size: int) -> None:
    """Makes this process's context the one that OpenGL draws to; others may have switched it meanwhile."""
    global _context
    if _context is None:
        if os.environ.get("MUJOCO_GL") == "egl":
            # `mujoco.GLContext` is chosen when mujoco is imported, which may have been before the variable was set.
            from mujoco.egl import GLContext
        else:
            from mujoco import GLContext
        # A frame is too small for Mesa's software renderer to share among threads; workers use the cores better.
        os.environ.setdefault("LP_NUM_THREADS", "1")
        _context = GLContext(size, size)
        atexit.register(_free_context)
    _context.make_current()


def _free_context() -> None:
    global _context
    if _context is not None:
        _context.free()
    _context = None
