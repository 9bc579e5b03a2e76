# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.evaluation.tokenizer_quality.scatter import MARGIN, SIZE, PointGroup, scatter_chart


def test_points_stand_where_they_belong():
    ends = np.linspace(-1, 1, 201)
    chart = scatter_chart("x", [PointGroup("a", ends, ends), PointGroup("b", np.zeros(2), np.array([9.0, -9.0]))])
    assert chart.labels == ("a", "b")
    # Decoded equals true on the diagonal.
    assert all(x + y == pytest.approx(SIZE, abs=0.11) for group, x, y in chart.points if group == 0)
    centre = SIZE / 2
    assert sorted((x, y) for group, x, y in chart.points if group == 1) == [
        (centre, float(MARGIN)),
        (centre, float(SIZE - MARGIN)),
    ]
    assert [tick.label for tick in chart.ticks] == ["-1", "-0.5", "0", "0.5", "1"]
    assert chart.ticks[2].position == pytest.approx(centre)


def test_a_single_value():
    chart = scatter_chart("x", [PointGroup("a", np.full(3, 2.0), np.array([2.0, 1.9, 2.1]))])
    assert len(chart.points) == 3 and chart.ticks
