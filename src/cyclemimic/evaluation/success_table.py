# SPDX-License-Identifier: Apache-2.0
"""Success rates of policies on tasks, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class IntervalBar:
    """A rate with its interval in percent of the bar's width: where the interval starts, how wide it is, the dot."""

    left: float
    width: float
    dot: float


@dataclass(frozen=True)
class SuccessCell:
    """Successes out of trials with the interval of the rate, `low` and `high` in [0, 1]."""

    successes: int
    trials: int
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 <= self.successes <= self.trials and self.trials > 0):
            raise ValueError(f"successes must be in 0..trials and trials above 0, got {self.successes}/{self.trials}")
        # Wilson's formula can miss 0 or 1 by a rounding error at all failures or all successes.
        if not -1e-9 <= self.low <= self.rate + 1e-9 <= self.high + 2e-9 <= 1.0 + 3e-9:
            raise ValueError(f"low <= {self.rate} <= high must hold within [0, 1], got {self.low} and {self.high}")

    @property
    def rate(self) -> float:
        """Successes a trial, in [0, 1]."""
        return self.successes / self.trials

    @property
    def bar(self) -> IntervalBar:
        """The interval as it is drawn."""
        low, high = min(max(self.low, 0.0), 1.0), min(max(self.high, 0.0), 1.0)
        return IntervalBar(left=round(100 * low, 3), width=round(100 * (high - low), 3), dot=round(100 * self.rate, 3))


@dataclass(frozen=True)
class SuccessRow:
    """One policy.

    Args:
        variant (`str`): Name of the policy.
        cells (`Mapping[str, SuccessCell]`): Task to result; tasks that were not run may lack.
        overall (`SuccessCell`, *optional*): All tasks together.
    """

    variant: str
    cells: Mapping[str, SuccessCell]
    overall: SuccessCell | None = None

    @classmethod
    def of_rates(cls, variant: str, rates: Mapping[str, Mapping[str, float]]) -> SuccessRow:
        """The row of rates as [`~cyclemimic.evaluation.intervals.success_rates`] gives them."""
        cells = {
            task: SuccessCell(int(rate["successes"]), int(rate["trials"]), rate["low"], rate["high"])
            for task, rate in rates.items()
        }
        return cls(variant, cells, overall=cells.pop("mean"))


@dataclass(frozen=True)
class SuccessTable:
    """Success rates of policies (rows, the method first) on tasks (columns)."""

    tasks: tuple[str, ...]
    rows: tuple[SuccessRow, ...]
