# SPDX-License-Identifier: Apache-2.0
"""Statistics of a data set's actions, by which the policy's processor normalises them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .episode import DataError, EpisodeSource, list_episodes


def compute_action_statistics(sources: Sequence[EpisodeSource]) -> dict[str, list[float] | list[bool]]:
    """Compute the statistics of each action dimension over all frames of some data sets.

    Args:
        sources (`Sequence[EpisodeSource]`): Data sets with one action space.

    Returns:
        `dict` of lists with one entry a dimension, ready for JSON: `q01`, `q99`, `mean`, `std`, `min`, `max` in
        physical units, and `mask`, `False` for dimensions to be left alone: those with at most two distinct values,
        that is, constant ones and binary grippers (OpenVLA excludes the gripper by name).

    Raises:
        DataError: If a data set has no actions, or actions of another size, or values that are not finite.
        ValueError: If `sources` is empty.
    """
    parts: list[np.ndarray] = []
    for episode in list_episodes(sources):
        actions = episode.actions
        if actions is None:
            raise DataError(f"{episode.source} has no actions to normalise; give data sets with actions")
        if parts and actions.shape[1] != parts[0].shape[1]:
            raise DataError(
                f"{episode.source}: actions of size {actions.shape[1]}, the ones before of size {parts[0].shape[1]}; "
                "give data sets with one action space"
            )
        if not np.isfinite(actions).all():
            raise DataError(
                f"{episode.source}: episode {episode.index} has actions that are not finite; leave it out with "
                "`episodes`"
            )
        parts.append(actions)
    actions = np.concatenate(parts).astype(np.float64)
    q01, q99 = np.quantile(actions, [0.01, 0.99], axis=0)
    statistics = {
        "q01": q01,
        "q99": q99,
        "mean": actions.mean(0),
        "std": actions.std(0),
        "min": actions.min(0),
        "max": actions.max(0),
        "mask": np.array([len(np.unique(column)) > 2 for column in actions.T]),
    }
    return {name: values.tolist() for name, values in statistics.items()}
