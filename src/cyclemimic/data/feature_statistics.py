# SPDX-License-Identifier: Apache-2.0
"""Statistics of a data set's columns as LeRobot stores them, gathered one episode at a time in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
# Rows kept a column for quantiles: exact for data sets of up to this many frames, a systematic sample beyond.
_MAX_ROWS = 200_000
# Images a episode that enter the statistics, and their largest side: colours hardly differ from frame to frame.
_IMAGES_PER_EPISODE = 100
_MAX_IMAGE_SIDE = 150


def vector_statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return min, max, mean, std, count and quantiles over the first axis of `(num_rows, size)` values."""
    values = np.asarray(values, dtype=np.float64)
    statistics = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(values)]),
    }
    return statistics | dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0)))


class VectorStatistics:
    """Running statistics of a numeric column.

    Mean and standard deviation merge exactly (Chan et al.); quantiles come from the rows kept.
    """

    def __init__(self) -> None:
        self._count = 0
        self._rows: list[np.ndarray] = []
        self._num_rows = 0
        self._stride = 1

    def update(self, values: np.ndarray) -> None:
        """Add rows of shape `(num_rows, size)`."""
        values = np.asarray(values, dtype=np.float64)
        if self._count == 0:
            self._min = self._max = self._mean = values[0]
            self._squares = np.zeros_like(values[0])
        mean, total = values.mean(0), self._count + len(values)
        delta = mean - self._mean
        self._squares = self._squares + ((values - mean) ** 2).sum(0) + delta**2 * self._count * len(values) / total
        self._mean = self._mean + delta * len(values) / total
        self._min, self._max = np.minimum(self._min, values.min(0)), np.maximum(self._max, values.max(0))
        # A copy: a view would keep all rows of its episode alive.
        kept = values[-self._count % self._stride :: self._stride].copy()
        self._rows.append(kept)
        self._num_rows += len(kept)
        self._count = total
        while self._num_rows > _MAX_ROWS:
            self._rows = [np.concatenate(self._rows)[::2]]
            self._num_rows, self._stride = len(self._rows[0]), 2 * self._stride

    def result(self) -> dict[str, np.ndarray]:
        """Return the statistics of all rows so far, as [`vector_statistics`]."""
        rows = np.concatenate(self._rows)
        exact = {
            "min": self._min,
            "max": self._max,
            "mean": self._mean,
            "std": np.sqrt(self._squares / self._count),
            "count": np.array([self._count]),
        }
        return exact | dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0)))


class DistinctValues:
    """Running count of the distinct values of each dimension, up to three: enough to know constant and binary ones."""

    def __init__(self) -> None:
        self._values: list[np.ndarray] | None = None

    def update(self, values: np.ndarray) -> None:
        """Add rows of shape `(num_rows, size)`."""
        if self._values is None:
            self._values = [np.empty(0, values.dtype)] * values.shape[1]
        self._values = [
            known if len(known) > 2 else np.unique(np.append(known, column))[:3]
            for known, column in zip(self._values, values.T, strict=True)
        ]

    def counts(self) -> list[int]:
        """Return the number of distinct values a dimension; 3 stands for 3 or more."""
        return [len(known) for known in self._values or []]


class ImageStatistics:
    """Running statistics of RGB images a channel, in `[0, 1]` and of shape `(3, 1, 1)`, from their histograms."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), dtype=np.int64)
        self._num_images = 0

    def update(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Add an episode's frames, `uint8` of shape `(num_frames, height, width, 3)`; return their own statistics."""
        chosen = np.unique(np.linspace(0, len(frames) - 1, _IMAGES_PER_EPISODE).round().astype(int))
        step = max(1, -(-max(frames.shape[1:3]) // _MAX_IMAGE_SIDE))
        histogram = np.zeros_like(self._histogram)
        for index in chosen:
            small = frames[index, ::step, ::step]
            for channel in range(3):
                histogram[channel] += np.bincount(small[..., channel].ravel(), minlength=256)
        self._histogram += histogram
        self._num_images += len(chosen)
        return _from_histogram(histogram, len(chosen))

    def result(self) -> dict[str, np.ndarray]:
        """Return the statistics of all images so far."""
        return _from_histogram(self._histogram, self._num_images)


def _from_histogram(histogram: np.ndarray, num_images: int) -> dict[str, np.ndarray]:
    levels = np.arange(256) / 255
    share = histogram / histogram.sum(1, keepdims=True)
    mean = (share * levels).sum(1)
    statistics = {
        "min": np.array([levels[row > 0].min() for row in histogram]),
        "max": np.array([levels[row > 0].max() for row in histogram]),
        "mean": mean,
        "std": np.sqrt((share * (levels - mean[:, None]) ** 2).sum(1)),
    }
    for name, quantile in QUANTILES.items():
        statistics[name] = levels[(share.cumsum(1) < quantile).sum(1).clip(max=255)]
    shaped = {name: value.reshape(3, 1, 1) for name, value in statistics.items()}
    return shaped | {"count": np.array([num_images])}


class DatasetStatistics:
    """Running statistics of all columns of a data set and of its camera."""

    def __init__(self) -> None:
        self._vectors: dict[str, VectorStatistics] = {}
        self._cameras: dict[str, ImageStatistics] = {}

    def update(self, columns: Mapping[str, np.ndarray], camera: str, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Add an episode; return its own statistics, named `stats/COLUMN/STATISTIC` as the episodes table has them."""
        own = {}
        for key, values in columns.items():
            rows = values.reshape(len(values), -1)
            self._vectors.setdefault(key, VectorStatistics()).update(rows)
            own[key] = vector_statistics(rows)
        own[camera] = self._cameras.setdefault(camera, ImageStatistics()).update(frames)
        return {f"stats/{key}/{name}": value for key, values in own.items() for name, value in values.items()}

    def result(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the statistics of every column so far."""
        features: dict[str, VectorStatistics | ImageStatistics] = {**self._vectors, **self._cameras}
        return {key: feature.result() for key, feature in features.items()}
