# SPDX-License-Identifier: Apache-2.0
"""What an evaluation of a tokenizer can be told."""

from __future__ import annotations

from dataclasses import dataclass

from cyclemimic.data.pairs import check_intervals

MOTIONS = ("state", "action")


@dataclass(frozen=True)
class QualitySettings:
    """Settings of [`measure_tokenizer`].

    Args:
        interval_s, min_interval_s (`float`): Seconds between the frames of a pair, as in
            [`cyclemimic.data.FramePairDataset`].
        motion (`str`, *optional*): What the true motion of a pair is read from: `"state"`, the difference of the
            states at its two frames, or `"action"`, the sum of the actions between them. By default the states where
            every data set has them, the actions otherwise.
        motion_dims (`tuple[int, ...]`, *optional*): Dimensions of the states or actions; the first three by default.
            They must mean the same in every data set, in the same units: probes of one body are scored on others.
        max_pairs (`int`, *optional*, defaults to 4000): Pairs of each body, evenly spread over its data.
        held_out_share (`float`, *optional*, defaults to 0.3): Share of each body's episodes that probes are scored on,
            and not fitted on.
        num_resamples (`int`, *optional*, defaults to 200): Bootstrap resamples behind an interval.
        transfer_probe_steps (`int`, *optional*, defaults to 1200): Training steps of the probe that reads the motion
            in generated frames.
        batch_size (`int`, *optional*, defaults to 128): Pairs a forward of the tokenizer.
        seed (`int`, *optional*, defaults to 0): Seed of every draw.

    Raises:
        ValueError: a value out of its range.
    """

    interval_s: float = 1.0
    min_interval_s: float = 0.5
    motion: str | None = None
    motion_dims: tuple[int, ...] | None = None
    max_pairs: int = 4000
    held_out_share: float = 0.3
    num_resamples: int = 200
    transfer_probe_steps: int = 1200
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_intervals(self.interval_s, self.min_interval_s)
        if self.motion is not None and self.motion not in MOTIONS:
            raise ValueError(f"`motion` must be one of {list(MOTIONS)}, got {self.motion!r}.")
        dims = self.motion_dims
        if dims is not None and (not dims or min(dims) < 0 or len(set(dims)) < len(dims)):
            raise ValueError(f"`motion_dims` must be distinct numbers from 0, one or more, got {list(dims)}.")
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"`held_out_share` must be in (0, 1), got {self.held_out_share:g}.")
        for name in ("max_pairs", "num_resamples", "transfer_probe_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise ValueError(f"`seed` must be at least 0, got {self.seed}.")
