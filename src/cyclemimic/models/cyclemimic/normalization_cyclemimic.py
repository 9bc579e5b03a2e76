# SPDX-License-Identifier: Apache-2.0
"""Actions and robot states to [-1, 1] and back, by percentiles of the data set they are of, as OpenVLA and UniVLA do."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Bounds(NamedTuple):
    """`q01`, `q99`, and whether a dimension is normalised at all, each to be broadcast over the values."""

    low: np.ndarray
    high: np.ndarray
    mask: np.ndarray


def checked_statistics(name: str, statistics: Mapping[str, Any], size: int) -> dict[str, Any]:
    """
    The statistics of one data set in plain lists, with a `mask`.

    Raises:
        ValueError: `q01`, `q99` or `mask` missing or not of `size` finite values, `q01` above `q99`, `mask` of others than
            booleans, which may be 0 and 1, or an `fps` that is no number above 0; it names `name`.
    """
    plain = {key: np.asarray(value).tolist() for key, value in statistics.items()}
    plain.setdefault("mask", [True] * size)
    for key in ("q01", "q99", "mask"):
        try:
            values = np.asarray(plain.get(key, []), dtype=np.float64)
        except (TypeError, ValueError):
            values = np.array(np.nan)
        if values.shape != (size,) or not np.isfinite(values).all():
            raise ValueError(f"`{name}` must hold {size} finite values as {key!r}, got {plain.get(key)}.")
    if not np.isin(plain["mask"], (0, 1)).all():
        raise ValueError(f"`{name}` must hold {size} booleans as 'mask', got {plain['mask']}.")
    if (np.asarray(plain["q01"]) > np.asarray(plain["q99"])).any():
        raise ValueError(f"`{name}` must have q01 <= q99, got q01 {plain['q01']} and q99 {plain['q99']}.")
    fps = plain.get("fps")
    is_rate = isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < float("inf")
    if fps is not None and not is_rate:
        raise ValueError(f"`{name}` must hold a number above 0 as 'fps', got {fps!r}.")
    return plain


def resolve_dataset(name: str, statistics: Mapping[str, Any], dataset: str | None) -> str:
    """
    The data set whose statistics are used: `dataset`, or the only one there is.

    Raises:
        ValueError: no statistics, which are called `name`, none of this data set, or several and no data set.
    """
    if not statistics:
        raise ValueError(f"`{name}` must hold the statistics of a data set, which fine-tuning adds, got none.")
    if dataset is None and len(statistics) == 1:
        return next(iter(statistics))
    if not isinstance(dataset, str) or dataset not in statistics:
        known = sorted(statistics)
        nearest = difflib.get_close_matches(str(dataset), known, n=1)
        suggestion = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise ValueError(f"`dataset` must be one of {known}, got {dataset!r}{suggestion}.")
    return dataset


def bounds_of(
    name: str, statistics: Mapping[str, Any], dataset: str | Sequence[str] | None, shape: tuple[int, ...]
) -> Bounds:
    """Of values of `shape`, the samples first, by the data set of all or of each sample. Raises as [`resolve_dataset`]."""
    of_all = dataset is None or isinstance(dataset, str)
    datasets: Sequence[Any] = [dataset] if of_all else dataset
    given = [resolve_dataset(name, statistics, each) for each in datasets]
    if not of_all and (len(shape) < 2 or len(given) != shape[0]):
        raise ValueError(f"`dataset` must be one name, or one a sample of {shape}, got {len(given)} names.")
    used = list(dict.fromkeys(given))
    rows = [used.index(each) for each in given]
    bounds_shape = (len(given), *[1] * (len(shape) - 2), shape[-1]) if not of_all else shape[-1:]
    return Bounds(
        *(
            np.asarray([statistics[each][key] for each in used], dtype=dtype)[rows].reshape(bounds_shape)
            for key, dtype in (("q01", np.float64), ("q99", np.float64), ("mask", bool))
        )
    )


def normalize(values: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Physical values to [-1, 1], clipped there; float32."""
    width = bounds.high - bounds.low
    # A dimension without width has one value, which every normalised value maps back to.
    normalized = np.where(width > 0, 2.0 * (values - bounds.low) / np.where(width > 0, width, 1.0) - 1.0, 0.0)
    return np.where(bounds.mask, np.clip(normalized, -1.0, 1.0), values).astype(np.float32)


def denormalize(values: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Values in [-1, 1], clipped there first, to physical ones; float32."""
    physical = (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * (bounds.high - bounds.low) + bounds.low
    return np.where(bounds.mask, physical, values).astype(np.float32)
