# SPDX-License-Identifier: Apache-2.0
"""Open-loop evaluation: predicted against recorded actions, for data without a simulator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from cyclemimic.evaluation.rollout import RolloutPolicy


def action_errors(
    policy: RolloutPolicy, frames: Dataset, mean_action: Sequence[float], scale: Sequence[float], batch_size: int = 32
) -> dict[str, float]:
    """
    Mean absolute error of action chunks on held-out frames, against always predicting the mean action. Each dimension
    is divided by its scale, so that metres and radians weigh alike.

    Args:
        policy ([`RolloutPolicy`]): What predicts.
        frames (`Dataset`): A [`cyclemimic.data.DemonstrationDataset`] with actions.
        mean_action (`Sequence[float]` of length `A`): Mean action of the training demonstrations.
        scale (`Sequence[float]` of length `A`): For example half the range from q01 to q99; dimensions whose scale is
            zero are left out.
        batch_size (`int`, *optional*, defaults to 32): Frames a policy call.

    Returns:
        `dict`: `"policy"`, `"mean_action"`, the two errors.

    Raises:
        ValueError: every scale is zero.
    """
    scale_array = np.asarray(scale, dtype=np.float64)
    used = scale_array > 0
    if not used.any():
        raise ValueError(f"`scale` must be above 0 in at least one dimension, got {list(scale)}.")
    total, mean_total, count = 0.0, 0.0, 0
    for start in range(0, len(frames), batch_size):
        items = [frames[index] for index in range(start, min(start + batch_size, len(frames)))]
        seen = [item["image"] for item in items], [item["instruction"] for item in items]
        if "robot_state" in items[0]:
            seen = *seen, [item["robot_state"] for item in items]
        predicted = policy.predict(*seen)
        mask = np.stack([item["actions_mask"] for item in items])
        actions = np.stack([item["actions"] for item in items])[mask][:, used]
        total += (np.abs(predicted[mask][:, used] - actions) / scale_array[used]).sum()
        mean_total += (np.abs(np.asarray(mean_action)[used] - actions) / scale_array[used]).sum()
        count += actions.size
    return {"policy": total / count, "mean_action": mean_total / count}
