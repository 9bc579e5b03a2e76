# SPDX-License-Identifier: Apache-2.0
"""The table that the arms stand behind: its camera, its looks, and whether the frames make sense."""

from __future__ import annotations

import mujoco
import numpy as np

CAMERA = "frontview"
# Zoomed in and less tilted than robosuite's, which shows more table than arm.
_CAMERA_FIELD, _CAMERA_TILT = 27.0, -5.5  # degrees
_BALL_RADIUS, _BALL_COLOR = 0.03, np.float32([1, 0, 0, 1])
_SURFACES = {
    "table": ["table_visual"],
    "floor": ["floor"],
    "walls": [f"wall_{side}_visual" for side in "leftcorner rightcorner left right rear front".split()],
}
_TEXTURES = ["table_ceramic", "floorplane", "walls_mat"]


class FrameError(RuntimeError):
    """Frames do not show what the simulator did, which a broken renderer does not report."""


class Camera:
    """Renders as the package's own environments do: no shadows, reflections, haze, sky, multisampling."""

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        model.light_castshadow[:] = 0
        model.mat_reflectance[:] = 0
        half = np.deg2rad(90 + _CAMERA_TILT) / 2
        model.camera(CAMERA).fovy = _CAMERA_FIELD
        model.camera(CAMERA).quat = np.array([np.cos(half), np.sin(half), np.sin(half), np.cos(half)]) / np.sqrt(2)
        self._renderer = mujoco.Renderer(model, size, size)  # the only one of this process, and upright
        for flag in ("SHADOW", "REFLECTION", "HAZE", "SKYBOX"):
            self._renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # the shapes that collide
        self._options.sitegroup[:] = 0

    def render(self, data: mujoco.MjData, ball: np.ndarray | None = None) -> np.ndarray:
        """uint8 of shape `(size, size, 3)`; with a ball at a position `(3,)` of the world, which nothing runs into."""
        self._renderer.update_scene(data, CAMERA, self._options)
        if ball is not None:
            scene = self._renderer.scene
            shape = scene.geoms[scene.ngeom]
            mujoco.mjv_initGeom(
                shape, mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, _BALL_RADIUS), ball, np.eye(3).ravel(), _BALL_COLOR
            )
            scene.ngeom += 1
        return self._renderer.render()

    def close(self) -> None:
        """Frees the renderer before the interpreter takes apart what it needs for that."""
        self._renderer.close()


def change_surroundings(model: mujoco.MjModel, random: np.random.Generator) -> None:
    """Gives table, floor and walls a random colour and texture, and the light a random direction and strength."""
    for geometries in _SURFACES.values():
        material = random.choice([-1, *(model.material(name).id for name in _TEXTURES)])
        color = [*random.uniform(0.1, 1.0, 3), 1.0]
        for name in geometries:
            model.geom(name).matid = material
            model.geom(name).rgba = color
    model.light_dir[0] = [*random.uniform(-0.8, 0.8, 2), -1]
    model.light_pos[0] = [*random.uniform(-1, 1, 2), random.uniform(1.5, 3)]
    model.light_diffuse[0] = random.uniform(0.3, 0.9) * random.uniform(0.8, 1, 3)
    model.vis.headlight.diffuse[:] = random.uniform(0.2, 0.6)
    model.vis.headlight.ambient[:] = random.uniform(0.1, 0.4)


def check_upright(model: mujoco.MjModel, data: mujoco.MjData, camera: Camera) -> None:
    """Paints the walls blue and the table red, and looks where they are.

    Raises:
        FrameError: The table isn't below the walls.
    """
    mujoco.mj_forward(model, data)  # the camera was turned
    for surface, color in {"walls": (0, 0, 1, 1), "table": (1, 0, 0, 1)}.items():
        for name in _SURFACES[surface]:
            model.geom(name).matid = -1
            model.geom(name).rgba = color
    red, green, blue = camera.render(data).astype(int).transpose(2, 0, 1)
    table, walls = (np.nonzero(high > low + green + 30)[0] for high, low in ((red, blue), (blue, red)))
    if not (len(table) and len(walls) and table.mean() > walls.mean()):
        raise FrameError("the frames are upside down, or lack the table or the walls; the renderer is broken here")


def check_frames(frames: np.ndarray, positions: np.ndarray, lag: int = 5) -> None:
    """Checks that the picture changes while the arm moves, and that it is no noise.

    Args:
        frames (`np.ndarray` of shape `(n, size, size, 3)`): uint8.
        positions (`np.ndarray` of shape `(n, 3)`): Of the end effector, in metres.
        lag (`int`, *optional*, defaults to 5): Frames to compare are this far apart.

    Raises:
        FrameError: It is not so.
    """
    frames = frames.astype(np.int16)
    roughness = np.abs(np.diff(frames, axis=2)).mean()
    if roughness > 30 or frames.std() < 5:
        raise FrameError(f"the frames are noise or empty: neighbouring pixels differ by {roughness:.0f} on average")
    moved = np.linalg.norm(positions[lag:] - positions[:-lag], axis=1) > 0.02
    changed = (np.abs(frames[lag:] - frames[:-lag]).max(axis=-1) > 8).mean(axis=(1, 2))
    if (changed[moved] < 0.002).any():
        raise FrameError("frames stand still while the arm moves; the renderer is broken here")
