# SPDX-License-Identifier: Apache-2.0
"""Statistics of a data set's actions and robot states, by which the policy's processor normalises them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .checking import checked_vectors
from .episode_source import EpisodeSource, iter_episodes
from .feature_statistics import DistinctValues, VectorStatistics

# Of a dimension's whole range, what it may tremble by and still rest: noise of numbers, as outliers would need to be a
# hundred thousand times as far out to be taken for its motion.
_REST_SHARE = 1e-5


def compute_action_statistics(sources: Sequence[EpisodeSource]) -> dict[str, list[float] | list[bool]]:
    """Compute the statistics of each action dimension over all frames of some data sets.

    Each episode is read once and held no longer than that. Mean, deviation, minimum and maximum are exact; so are the
    quantiles of up to 200,000 frames, beyond which they are those of a systematic sample of at least 100,000.

    Args:
        sources (`Sequence[EpisodeSource]`): Data sets with one action space.

    Returns:
        `dict` of lists with one entry a dimension, ready for JSON: `q01`, `q99`, `mean`, `std`, `min`, `max` in
        physical units, and `mask`, `False` for dimensions to be left alone: those of two values in [-1, 1] at least 1
        apart, that is, binary grippers (OpenVLA excludes the gripper by name). Two other values, such as a gripper's 0 and
        100 or 0 and 0.04 m, become -1 and 1 by `q01` and `q99` at `min` and `max`, and a constant comes back exactly; so
        do the few values of a dimension that rests in nearly all frames, which by its percentiles would rest for ever.

    Raises:
        DataError: If a data set has no actions, or actions of another size, or values that are not finite.
        ValueError: If `sources` is empty.
    """
    statistics = _statistics(sources, "actions")
    low, high, has_few_values = np.array(statistics["min"]), np.array(statistics["max"]), ~np.array(statistics["mask"])
    is_binary = has_few_values & (low >= -1) & (high <= 1) & (high - low >= 1)
    return _spanned(statistics, has_few_values & ~is_binary) | {"mask": (~is_binary).tolist()}


def compute_state_statistics(sources: Sequence[EpisodeSource]) -> dict[str, list[float] | list[bool]]:
    """Compute the statistics of each dimension of the robot state, as [`compute_action_statistics`] does of actions.

    `mask` is `True` throughout: a state is only read, so that a constant dimension may become zero, and none should reach
    the network in physical units.

    Args:
        sources (`Sequence[EpisodeSource]`): Data sets whose episodes all have states of one size.
    """
    statistics = _statistics(sources, "states")
    return {**statistics, "mask": [True] * len(statistics["mask"])}


def _statistics(sources: Sequence[EpisodeSource], column: str) -> dict[str, list[float] | list[bool]]:
    running, distinct = VectorStatistics(), DistinctValues()
    size: int | None = None
    for episode in iter_episodes(sources):
        values = checked_vectors(episode, column, size, f"give data sets with {column}")
        size = values.shape[1]
        running.update(values)
        distinct.update(values)
    statistics = running.result()
    lists = {name: statistics[name].tolist() for name in ("q01", "q99", "mean", "std", "min", "max")}
    usual, whole = statistics["q99"] - statistics["q01"], statistics["max"] - statistics["min"]
    is_resting = (usual <= _REST_SHARE * whole) & (whole > 0)
    return _spanned({**lists, "mask": [count > 2 for count in distinct.counts()]}, is_resting)


def _spanned(statistics: dict[str, Any], where: np.ndarray) -> dict[str, Any]:
    """The statistics with `min` and `max` in place of the percentiles of some dimensions."""
    ends = (("q01", "min"), ("q99", "max"))
    return statistics | {name: np.where(where, statistics[end], statistics[name]).tolist() for name, end in ends}
