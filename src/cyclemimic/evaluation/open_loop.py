# SPDX-License-Identifier: Apache-2.0
"""Open-loop evaluation: predicted against recorded actions, for data without a simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from cyclemimic.data import DemonstrationDataset
from cyclemimic.evaluation.policy import RolloutPolicy


def action_errors(
    policy: RolloutPolicy,
    frames: DemonstrationDataset,
    mean_action: Sequence[float],
    scale: Sequence[float],
    batch_size: int = 32,
) -> dict[str, Any]:
    """
    Mean absolute error of action chunks on held-out frames, against always predicting the mean action, and against going on
    with the last action before the frame (at an episode's start: the mean). Each dimension is divided by its scale, so that
    metres and radians weigh alike.

    Args:
        policy ([`RolloutPolicy`]): What predicts.
        frames ([`~cyclemimic.data.DemonstrationDataset`]): Held-out frames with actions.
        mean_action (`Sequence[float]` of length `A`): Mean action of the training demonstrations.
        scale (`Sequence[float]` of length `A`): For example half the range from q01 to q99; dimensions whose scale is
            zero are left out.
        batch_size (`int`, *optional*, defaults to 32): Frames a policy call.

    Returns:
        `dict`: `"policy"`, `"mean_action"`, `"last_action"`, the errors; `"per_dimension"`: the same of each dimension
        that is not left out; `"dimensions"`: which those are.

    Raises:
        ValueError: every scale is zero.
    """
    scale_array = np.asarray(scale, dtype=np.float64)
    used = scale_array > 0
    if not used.any():
        raise ValueError(f"`scale` must be above 0 in at least one dimension, got {list(scale)}.")
    mean = np.asarray(mean_action, dtype=np.float64)
    totals = {name: np.zeros(len(mean)) for name in ("policy", "mean_action", "last_action")}
    count = 0
    for start in tqdm(range(0, len(frames), batch_size), desc="frames", unit="batch"):
        items = [frames[index] for index in range(start, min(start + batch_size, len(frames)))]
        predicted = policy.predict(
            [item["image"] for item in items],
            [item["instruction"] for item in items],
            [item["robot_state"] for item in items] if "robot_state" in items[0] else None,
        )
        last = np.stack([_last_action(frames, index, mean) for index in range(start, start + len(items))])
        guesses = {"policy": predicted, "mean_action": mean, "last_action": last[:, None]}
        mask = np.stack([item["actions_mask"] for item in items])
        actions = np.stack([item["actions"] for item in items])
        for name, guess in guesses.items():
            totals[name] += np.abs(np.broadcast_to(guess, actions.shape)[mask] - actions[mask]).sum(0)
        count += int(mask.sum())
    errors = {name: total[used] / count / scale_array[used] for name, total in totals.items()}
    return {
        **{name: float(error.mean()) for name, error in errors.items()},
        "per_dimension": {name: error.tolist() for name, error in errors.items()},
        "dimensions": np.flatnonzero(used).tolist(),
    }


def errors_by_statistics(
    policy: RolloutPolicy, frames: DemonstrationDataset, statistics: Mapping[str, Any], batch_size: int = 32
) -> dict[str, Any]:
    """
    [`action_errors`] by the action statistics of a processor, each dimension in units of half its q01 to q99 range. Where they
    have no `mean`, which a policy does not need, it is that of `frames`.
    """
    scale = (np.asarray(statistics["q99"]) - np.asarray(statistics["q01"])) / 2
    mean = statistics.get("mean")
    if mean is None:
        mean = np.concatenate([episode.actions for episode in frames.episodes]).mean(axis=0).tolist()
    return action_errors(policy, frames, mean, scale.tolist(), batch_size)


def _last_action(frames: DemonstrationDataset, index: int, at_the_start: np.ndarray) -> np.ndarray:
    position, frame_index = frames.frames[index].tolist()
    return frames.episodes[position].actions[frame_index - 1] if frame_index else at_the_start
