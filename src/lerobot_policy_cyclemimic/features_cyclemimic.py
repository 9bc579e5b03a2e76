# SPDX-License-Identifier: Apache-2.0
"""From LeRobot's features and statistics to the policy's cameras, sizes and bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from cyclemimic import CycleMimicConfig as ModelConfig

from .configuration_cyclemimic import CycleMimicConfig

ACTION, STATE, IMAGES = "action", "observation.state", "observation.images."
_KEPT = ("mean", "std", "min", "max")


def choose_cameras(config: CycleMimicConfig, loaded: ModelConfig) -> list[str]:
    """
    Image features in the order that the policy sees them: those asked for, those that the checkpoint names, or the
    only one.

    Raises:
        ValueError: one of them is not there, or there are several and none is named.
    """
    known = list(config.image_features)
    named = [name if name in known or name.startswith(IMAGES) else IMAGES + name for name in loaded.camera_names or []]
    cameras = config.cameras or named or known or [f"{IMAGES}image"]
    if known and not set(cameras) <= set(known):
        raise ValueError(f"`cameras` must be out of {known}, got {cameras}.")
    if len(cameras) > 1 and not (config.cameras or named):
        raise ValueError(f"`cameras` must say with which of {known} the policy sees, got None.")
    return cameras


def wanted_sizes(config: CycleMimicConfig, loaded: ModelConfig) -> dict[str, Any]:
    """Sizes of the features: a policy that was only pretrained is made to fit them, a fine-tuned one must."""
    action, state = config.action_feature, config.robot_state_feature
    if config.use_robot_state and state is None:
        raise ValueError(f"`use_robot_state` must be false without {STATE!r} among the input features, got true.")
    inputs = {
        "state_dim": state.shape[0] if config.use_robot_state else loaded.state_dim,
        "camera_names": loaded.camera_names,
    }
    if len(config.cameras) != loaded.num_cameras:
        inputs["camera_names"] = config.cameras if len(config.cameras) > 1 else None
    sizes = {
        "chunk_size": config.chunk_size or loaded.chunk_size,
        "action_dim": loaded.action_dim if action is None else action.shape[0],
    }
    return sizes | {name: value for name, value in inputs.items() if (value, getattr(loaded, name)) != (None, None)}


def percentiles(dataset_stats: dict[str, dict[str, Any]], feature: str) -> dict[str, list[float]]:
    """
    `q01` and `q99` of a feature, with what else the package keeps of one. Where the two are one, as of a gripper that seldom
    moves, its minimum and maximum.

    Raises:
        ValueError: the data set does not have them.
    """
    stats = dataset_stats.get(feature, {})
    if not {"q01", "q99"} <= stats.keys():
        raise ValueError(
            f"`dataset_stats` must hold q01 and q99 of {feature!r}, got {sorted(stats)}; LeRobot's "
            "augment_dataset_quantile_stats adds them to a data set."
        )
    low, high, least, most = (np.asarray(stats[key], dtype=np.float64) for key in ("q01", "q99", "min", "max"))
    is_flat = low >= high
    kept = {key: np.asarray(stats[key], dtype=np.float64).tolist() for key in _KEPT if key in stats}
    return kept | {"q01": np.where(is_flat, least, low).tolist(), "q99": np.where(is_flat, most, high).tolist()}


__all__ = ["ACTION", "STATE", "choose_cameras", "percentiles", "wanted_sizes"]
