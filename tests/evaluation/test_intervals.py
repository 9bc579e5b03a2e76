# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic.evaluation.intervals import success_rates, wilson_interval
from cyclemimic.evaluation.rollout import Trial, TrialResult


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_published_values(successes, trials, expected):
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-5)


def test_failures_mirror_successes():
    low, high = wilson_interval(6, 20)
    assert wilson_interval(14, 20) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("arguments", [(1, 0), (3, 2), (-1, 2)])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=r"must be in .*got"):
        wilson_interval(*arguments)


def test_rates_of_each_task_and_of_all():
    results = [TrialResult(Trial(task, 0), success) for task, success in [("a", True), ("a", False), ("b", True)]]
    rates = success_rates(results)
    assert list(rates) == ["a", "b", "mean"]
    low, high = wilson_interval(2, 3)
    assert rates["mean"] == {"successes": 2, "trials": 3, "rate": 2 / 3, "low": low, "high": high}
    assert rates["a"]["rate"] == 0.5 and rates["b"]["successes"] == 1
