# SPDX-License-Identifier: Apache-2.0
"""Frames of a video the way up that players show them: phones write all as their sensor lies, and say how to turn it."""

from __future__ import annotations

import av
import numpy as np
from av.sidedata.sidedata import SideData


def upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn by quarter turns and mirror a decoded picture as its file says.

    Args:
        picture (`np.ndarray` of shape `(height, width, 3)`): Pixels of the frame.
        frame (`av.VideoFrame`): The frame, for what the file says.

    Returns:
        `np.ndarray` of shape `(height, width, 3)` or `(width, height, 3)`: `picture` itself where it is upright.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return picture
    # On the screen, a pixel is in column `a * column + c * row` and row `b * column + d * row`. Not `frame.rotation`:
    # there, a mirrored picture looks like one on its head.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, 5).tolist()
    if abs(b) > abs(a):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
