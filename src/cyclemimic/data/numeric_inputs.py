# SPDX-License-Identifier: Apache-2.0
"""Numbers that callers give: what they must be is checked here, and never made of others in silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def is_rate(fps: object) -> bool:
    """Whether it is a number that may be of frames per second."""
    return isinstance(fps, int | float | np.number) and 0 < float(fps) < float("inf")


def as_whole_numbers(values: ArrayLike) -> np.ndarray:
    """Return whole numbers as an array, `int64`.

    Raises:
        ValueError: If there is anything else among them, which it names: a fraction, NaN, a boolean, a text.
    """
    array = np.asarray(values)
    if array.dtype.kind == "O":
        # Python's numbers, or the lists of a column of lists: NumPy looks into them only as parts of a list.
        array = np.asarray(array.tolist())
    if array.dtype.kind == "f":
        is_whole = (array == np.trunc(array)) & (np.abs(array) < 2.0**63)
        if not is_whole.all():
            raise ValueError(f"{array[~is_whole].flat[0]:g}")
    elif array.dtype.kind not in "iu":
        raise ValueError(array.dtype.name)
    return array.astype(np.int64, copy=False)


def as_indices(indices: Sequence[int]) -> np.ndarray:
    """Return indices as an array, `int64`; `ValueError` where one is no whole number."""
    try:
        return as_whole_numbers(indices)
    except ValueError as error:
        raise ValueError(f"`indices` must be whole numbers, got others ({error})") from error


def as_array(name: str, values: Any, dtype: type | None = None) -> np.ndarray:
    """Return what a caller gave as `name` as an array; `ValueError` where rows differ in length or hold no numbers."""
    try:
        return np.asarray(values, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"`{name}` must be numbers in rows of one shape, got others ({error}).") from error


def as_vectors(name: str, values: Any, num_frames: int) -> np.ndarray | None:
    """Return `name` as `float32` of shape `(num_frames, dim)`, or `None`; `ValueError` where it has another shape."""
    if values is None:
        return None
    vectors = as_array(name, values, np.float32)
    if vectors.ndim != 2 or len(vectors) != num_frames:
        raise ValueError(
            f"`{name}` must have shape ({num_frames}, {name[:-1]}_dim), a row a frame, got {vectors.shape}."
        )
    return vectors
