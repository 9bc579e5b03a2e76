# SPDX-License-Identifier: Apache-2.0
"""Measured rates, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclemimic.evaluation.rollout import TrialResult

# Probability that an interval covers the true rate.
_CONFIDENCE = 0.95


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a success rate, which stays in `[0, 1]` and is fair for few trials.

    Args:
        successes (`int`): How often it worked.
        trials (`int`): Out of how many.

    Returns:
        `tuple[float, float]`: Lower and upper end.

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"`successes` must be in [0, trials] and `trials` at least 1, got {successes} of {trials}.")
    z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    rate = successes / trials
    center = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At all failures or all successes the ends are exact; rounding must not push them out.
    return (0.0 if successes == 0 else center - half, 1.0 if successes == trials else center + half)


def success_rates(results: Sequence[TrialResult]) -> dict[str, dict[str, float]]:
    """
    Success a task, and over all trials as `"mean"`.

    Returns:
        `dict`: task → `{"successes", "trials", "rate", "low", "high"}`, the last two Wilson's 95 % interval. Every task
        should have as many trials, then the rate over all trials is the mean of the tasks' rates.
    """
    by_task: dict[str, list[bool]] = {}
    for result in results:
        by_task.setdefault(result.trial.task, []).append(result.success)
    by_task["mean"] = [result.success for result in results]
    rates = {}
    for task, outcomes in by_task.items():
        successes, trials = sum(outcomes), len(outcomes)
        low, high = wilson_interval(successes, trials)
        rates[task] = {
            "successes": successes,
            "trials": trials,
            "rate": successes / trials,
            "low": low,
            "high": high,
        }
    return rates
