# SPDX-License-Identifier: Apache-2.0
"""What rollouts came to: success of a row, of its tasks, and how far two rows are apart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from cyclemimic.evaluation.intervals import wilson_interval

RESAMPLES = 10_000

# Task → scene → whether the policy succeeded.
Outcomes = dict[str, dict[int, bool]]


def read_outcomes(results: Path) -> Outcomes:
    """The trials of a `results.json`."""
    outcomes: Outcomes = {}
    for trial in json.loads(results.read_text())["trials"]:
        outcomes.setdefault(trial["task"], {})[trial["initial_state"]] = bool(trial["success"])
    return outcomes


def rate(outcomes: Outcomes) -> float:
    """Success over all trials."""
    return statistics.mean(success for scenes in outcomes.values() for success in scenes.values())


def mean_success(by_seed: Mapping[int, Outcomes]) -> dict[str, float]:
    """Mean of the seeds with its 95 % interval: Student's over the seeds, as another seed is another policy; of one, Wilson's over
    its trials."""
    rates = np.array([rate(outcomes) for outcomes in by_seed.values()])
    if len(rates) > 1:
        low, high = np.clip(_between_seeds(rates), 0, 1)
    else:
        trials = [success for scenes in next(iter(by_seed.values())).values() for success in scenes.values()]
        low, high = wilson_interval(sum(trials), len(trials))
    return {"mean": float(rates.mean()), "low": float(low), "high": float(high)}


def task_success(by_seed: Mapping[int, Outcomes]) -> dict[str, dict[str, float]]:
    """As [`mean_success`], of every task."""
    tasks = dict.fromkeys(task for outcomes in by_seed.values() for task in outcomes)
    return {
        task: mean_success({seed: {task: outcomes[task]} for seed, outcomes in by_seed.items() if task in outcomes})
        for task in tasks
    }


@dataclass(frozen=True)
class Difference:
    """By how much the mean success of one row is above another's, its 95 % interval, and over how many seeds."""

    mean: float
    low: float
    high: float
    num_seeds: int


def paired_difference(one: Mapping[int, Outcomes], other: Mapping[int, Outcomes]) -> Difference | None:
    """
    Over the seeds that both rows have, in which they play the same scenes. Of several seeds, Student's interval over their
    differences: they differ by more than scenes do, and a bootstrap of three is too narrow. Of one, a bootstrap over the
    scenes of every task, both rows the same, which says nothing of other seeds. `None` without a seed in common.

    Raises:
        ValueError: other scenes, or tasks with other numbers of them.
    """
    differences = _differences(one, other)
    if differences is None:
        return None
    of_seeds = differences.mean((1, 2))
    low, high = _between_seeds(of_seeds) if len(of_seeds) > 1 else _between_scenes(differences[0])
    return Difference(float(of_seeds.mean()), low, high, len(of_seeds))


def _between_seeds(values: np.ndarray) -> tuple[float, float]:
    reach = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - reach), float(values.mean() + reach)


def _between_scenes(differences: np.ndarray) -> tuple[float, float]:
    """Of `(num_tasks, num_scenes)`; the tasks are what they are."""
    num_tasks, num_scenes = differences.shape
    random, tasks = np.random.default_rng(0), np.arange(num_tasks)[:, None]
    means = [
        differences[tasks, random.integers(0, num_scenes, (num_tasks, num_scenes))].mean() for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _differences(one: Mapping[int, Outcomes], other: Mapping[int, Outcomes]) -> np.ndarray | None:
    """-1, 0 or 1, of shape `(num_seeds, num_tasks, num_scenes)`."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    scenes = {task: sorted(states) for task, states in one[seeds[0]].items()}
    for by_seed in (one, other):
        for seed in seeds:
            if {task: sorted(states) for task, states in by_seed[seed].items()} != scenes:
                raise ValueError(
                    f"rows can be compared only where they played the same scenes, which seed {seed} did not"
                )
    if len({len(states) for states in scenes.values()}) != 1:
        raise ValueError("every task must have as many scenes")
    values = [
        [[by_seed[seed][task][state] for state in states] for task, states in scenes.items()]
        for by_seed in (one, other)
        for seed in seeds
    ]
    successes = np.array(values, dtype=int).reshape(2, len(seeds), len(scenes), -1)
    return successes[0] - successes[1]
