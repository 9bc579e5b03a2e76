# SPDX-License-Identifier: Apache-2.0
"""Intervals of measured rates."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a success rate, which stays in `[0, 1]` and is fair for few trials.

    Args:
        successes (`int`): How often it worked.
        trials (`int`): Out of how many.
        confidence (`float`, *optional*, defaults to 0.95): Probability that the interval covers the true rate.

    Returns:
        `tuple[float, float]`: Lower and upper end.

    Raises:
        ValueError: no trial, more successes than trials, or `confidence` outside (0, 1).
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"`successes` must be in [0, trials] and `trials` at least 1, got {successes} of {trials}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    center = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At all failures or all successes the ends are exact; rounding must not push them out.
    return (0.0 if successes == 0 else center - half, 1.0 if successes == trials else center + half)
