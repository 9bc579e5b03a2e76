# SPDX-License-Identifier: Apache-2.0
"""Representations to hold the codes against: what a probe reads where no tokenizer had to name a motion."""

from __future__ import annotations

import numpy as np
import torch

from .pair_sample import PairSample
from .passes import TokenizerPasses

_GRID_SIZE = 12
_VISION_GRID_SIZE = 4
_NUM_PROJECTIONS = 512
_BLOCK = 512


def coarse_frames(frames: np.ndarray, grid_size: int = _GRID_SIZE) -> np.ndarray:
    """Frames averaged over the cells of a grid.

    Args:
        frames (`np.ndarray` of shape `(n, height, width, 3)`): uint8.
        grid_size (`int`, *optional*, defaults to 12): Cells along each side, at most the frame's pixels.

    Returns:
        `np.ndarray` of shape `(n, 3 * grid_size * grid_size)`: float32 in [0, 1].
    """
    size = (min(grid_size, frames.shape[1]), min(grid_size, frames.shape[2]))
    blocks = [
        torch.nn.functional.adaptive_avg_pool2d(
            torch.from_numpy(frames[start : start + _BLOCK]).permute(0, 3, 1, 2).float() / 255, size
        )
        for start in range(0, len(frames), _BLOCK)
    ]
    return torch.cat(blocks).flatten(1).numpy()


def control_features(sample: PairSample, passes: TokenizerPasses, seed: int) -> dict[str, np.ndarray]:
    """
    What the probes are fitted on besides codes.

    Args:
        sample ([`PairSample`]): `n` pairs.
        passes ([`TokenizerPasses`]): For the tokenizer's vision model, if it has one.
        seed (`int`): Seed of the random projection.

    Returns:
        `dict` of float32 features `(n, num_features)`:
        - **current_frame**: the coarse current frame alone. What is read from it was never in the motion.
        - **pixel_difference**: the coarse future frame less the coarse current one.
        - **vision_difference**: the same of the vision model's features, where the tokenizer has one, by a random
          projection that keeps distances.
    """
    coarse = coarse_frames(sample.frames)
    features = {
        "current_frame": coarse[sample.current],
        "pixel_difference": coarse[sample.future] - coarse[sample.current],
    }
    if passes.tokenizer.config.vision_config is not None:
        vision = passes.vision_features(sample.frames, _VISION_GRID_SIZE, _NUM_PROJECTIONS, seed)
        features["vision_difference"] = vision[sample.future] - vision[sample.current]
    return features
