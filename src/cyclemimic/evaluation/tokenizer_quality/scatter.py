# SPDX-License-Identifier: Apache-2.0
"""Geometry of the page's scatter charts: true against decoded motion. The template only draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..charts import Tick, nice_ticks

SIZE, MARGIN = 300, 40


@dataclass(frozen=True, eq=False)
class PointGroup:
    """Points of one colour.

    Args:
        label (`str`): Name in the legend.
        true, decoded (`np.ndarray` of shape `(n,)`): Horizontal and vertical positions.
    """

    label: str
    true: np.ndarray
    decoded: np.ndarray


@dataclass(frozen=True)
class ScatterChart:
    """A drawn chart: a square of `size` units, with one range for both axes.

    Args:
        title (`str`): Name of the chart.
        labels (`tuple[str, ...]`): Names in the legend.
        points (`tuple[tuple[int, float, float], ...]`): Number of the group, and place from the top left corner.
        ticks (`tuple[Tick, ...]`): Marks; `position` is from the left, and serves both axes.
    """

    title: str
    labels: tuple[str, ...]
    points: tuple[tuple[int, float, float], ...]
    ticks: tuple[Tick, ...]
    size: int = SIZE
    margin: int = MARGIN


def scatter_chart(title: str, groups: Sequence[PointGroup]) -> ScatterChart:
    """Lay out a chart of true against decoded values.

    Args:
        title (`str`): Name of the chart.
        groups (`Sequence[PointGroup]`): Points with finite positions, one or more.

    Returns:
        [`ScatterChart`]: Points outside the range of all but the wildest hundredth of true values stand at its edge.
    """
    low, high = np.percentile(np.concatenate([group.true for group in groups]), [0.5, 99.5])
    margin = 0.05 * (high - low) or 0.5
    low, high = float(low - margin), float(high + margin)

    def along(values: np.ndarray) -> np.ndarray:
        return MARGIN + (np.clip(values, low, high) - low) / (high - low) * (SIZE - 2 * MARGIN)

    points = [
        (number, round(float(x), 1), round(float(SIZE - y), 1))
        for number, group in enumerate(groups)
        for x, y in zip(along(group.true), along(group.decoded), strict=True)
    ]
    # Mixed, so that no group hides the ones before it.
    order = np.random.default_rng(0).permutation(len(points))
    values = nice_ticks(low, high, 4)
    ticks = tuple(Tick(float(place), f"{value:g}") for place, value in zip(along(np.array(values)), values))
    return ScatterChart(title, tuple(group.label for group in groups), tuple(points[i] for i in order), ticks)
