# SPDX-License-Identifier: Apache-2.0
"""Which camera of a data set is read."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..episode import DataError

logger = logging.getLogger(__name__)

# Order in which cameras are preferred when none is named: the ones that see the scene, as the data sets of the paper's
# mixture name them. Cameras on the moving hand come last: what they see change is the camera's own motion.
_SCENE_CAMERAS = ("image", "image_0", "main", "top", "front", "agentview", "static", "side", "ego")
_HAND_CAMERAS = ("wrist", "hand", "gripper")
# What is no picture of the scene though it is kept as one: after the hand's cameras.
_NO_PICTURES = ("depth", "disparity", "segmentation", "mask")


def choose_camera(cameras: Sequence[str], wanted: str | None, root: object, name: str) -> str:
    """Return the camera to read: the one named, or of several one that sees the scene, and the choice is logged.

    Args:
        cameras (`Sequence[str]`): Keys of the cameras that can be read, at least one.
        wanted (`str` or `None`): A key, whole or its last part, as in `observation.images.top`.
        root (`object`), name (`str`): What messages call the data set.

    Raises:
        DataError: If there is no such camera.
    """
    if wanted is not None:
        matches = [key for key in cameras if key == wanted] or [
            key for key in cameras if key.endswith((f".{wanted}", f"/{wanted}"))
        ]
        if len(matches) > 1:
            raise DataError(f"{root} has several cameras {wanted!r}; give one of {matches} as `camera`")
        if not matches:
            raise DataError(f"{root} has no camera {wanted!r}; give one of {list(cameras)} as `camera`")
        return matches[0]
    chosen = min(cameras, key=_rank)
    if len(cameras) > 1:
        logger.info("%s: camera %s of %s; `camera` chooses another", name, chosen, list(cameras))
    return chosen


def _rank(camera: str) -> tuple[bool, bool, int]:
    name = camera.replace("/", ".").rsplit(".", 1)[-1].lower()
    exact = [rank for rank, word in enumerate(_SCENE_CAMERAS) if name == word]
    part = [len(_SCENE_CAMERAS) + rank for rank, word in enumerate(_SCENE_CAMERAS) if word in name]
    is_no_picture, is_on_hand = (any(word in name for word in words) for words in (_NO_PICTURES, _HAND_CAMERAS))
    return is_no_picture, is_on_hand, (exact + part + [2 * len(_SCENE_CAMERAS)])[0]
