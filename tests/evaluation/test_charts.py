# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import numpy as np
import pytest

from cyclemimic.evaluation.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    _label_ticks,
    line_chart,
    log_ticks,
    nice_ticks,
    smooth_values,
)
from cyclemimic.evaluation.formatting import (
    format_bytes,
    format_columns,
    format_duration,
    format_number,
    format_percent,
)


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def test_line_runs_from_corner_to_corner():
    chart = line_chart([Series("loss", [0, 50, 100], [0.0, 0.5, 1.0])])
    (line,) = chart.lines
    first, middle, last = points(line.smooth)
    # The vertical axis has a margin of a twentieth of the span on both sides.
    height = HEIGHT - TOP - BOTTOM
    assert first == pytest.approx((LEFT, HEIGHT - BOTTOM - height * 0.05 / 1.1), abs=0.1)
    assert middle == pytest.approx(((LEFT + WIDTH - RIGHT) / 2, TOP + height / 2), abs=0.1)
    assert last == pytest.approx((WIDTH - RIGHT, TOP + height * 0.05 / 1.1), abs=0.1)
    assert [tick.label for tick in chart.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    assert [tick.label for tick in chart.y_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert line.last == "1"


def test_values_that_are_not_finite_are_gaps():
    (line,) = line_chart([Series("loss", range(6), [1, 2, np.nan, np.inf, 3, 4])]).lines
    assert line.smooth.count("M") == 2 and len(points(line.smooth)) == 4
    assert "nan" not in line.smooth + line.raw


def test_log_scale_places_decades_evenly_and_drops_what_is_not_positive():
    chart = line_chart([Series("loss", [0, 1, 2, 3], [100.0, 1.0, 0.0, 0.01])], log_scale=True)
    (first, second, last), ticks = points(chart.lines[0].smooth), chart.y_ticks
    assert second[1] - first[1] == pytest.approx(last[1] - second[1], abs=0.2)
    assert [tick.label for tick in ticks] == ["0.01", "0.1", "1", "10", "100"]
    assert chart.lines[0].last == "0.0100"


@pytest.mark.parametrize("log_scale", [False, True])
@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [0.3], [2.0, 2.0, 2.0]])
def test_degenerate_series_do_not_fail(values, log_scale):
    chart = line_chart([Series("a", range(len(values)), values)], log_scale)
    assert len(chart.lines) == 1
    drawable = bool(np.isfinite(values).any())
    assert bool(chart.lines[0].smooth) == drawable == bool(chart.x_ticks)
    assert line_chart([], log_scale).lines == ()


def test_a_spike_does_not_flatten_the_line():
    values = np.linspace(1.0, 0.5, 1000)
    values[500] = 1e6
    spiked = line_chart([Series("a", range(1000), np.where(values > 10, 10, values))])
    heights = [y for _, y in points(spiked.lines[0].smooth)]
    assert max(heights) - min(heights) > 0.3 * (HEIGHT - TOP - BOTTOM)


def test_smoothing_keeps_constants_gaps_and_short_series():
    values = np.full(200, 3.0)
    values[50:60] = np.nan
    np.testing.assert_allclose(smooth_values(values), values)
    short = np.array([1.0, 5.0, 2.0])
    np.testing.assert_array_equal(smooth_values(short), short)
    noise = np.random.default_rng(0).standard_normal(400)
    assert smooth_values(noise).std() < 0.3


def test_ticks_that_are_close_have_all_their_digits():
    for values in ([2000.2, 2000.4, 2000.6], [1.00e6, 1.01e6, 1.02e6]):
        labels = [tick.label for tick in _label_ticks(np.arange(3.0), np.array(values))]
        assert [float(label) for label in labels] == values


def test_ticks_are_round_and_inside():
    assert nice_ticks(0.0, 1.0, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(-3.0, 7.0, 5) == [-2.0, 0.0, 2.0, 4.0, 6.0]
    assert log_ticks(-2.0, 1.0) == pytest.approx([0.01, 0.1, 1.0, 10.0])
    assert len(log_ticks(-20.0, 0.0)) <= 8
    for low, high in ((-0.7, -0.6), (-3.1, -2.2), (0.0, 0.4)):
        ticks = log_ticks(low, high)
        assert len(ticks) >= 2 and all(low - 1e-9 <= np.log10(tick) <= high + 1e-9 for tick in ticks)


def test_thousands_are_written_in_one_unit():
    labels = [tick.label for tick in line_chart([Series("a", [0, 20_000], [1, 2])]).x_ticks]
    assert labels == ["0", "5k", "10k", "15k", "20k"]


def test_long_series_are_thinned():
    (line,) = line_chart([Series("a", range(100_000), np.sin(np.arange(100_000) / 9e3))]).lines
    assert len(line.smooth) + len(line.raw) < 20_000


def test_series_of_two_lengths_is_refused():
    with pytest.raises(ValueError, match="'loss' must have the same length, got 2 and 3"):
        Series("loss", [0, 1], [1, 2, 3])


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        (format_number(0.012345), "0.0123"),
        (format_number(0.9996), "1.000"),
        (format_number(9.42), "9.42"),
        (format_number(16), "16"),
        (format_number(12400.4), "12\u202f400"),
        (format_number(3.2e-6), "3.2 × 10⁻⁶"),
        (format_number(1e-5), "10⁻⁵"),
        (format_number(0), "0"),
        (format_number(-0.5), "-0.500"),
        (format_number(float("nan")), "–"),
        (format_number(None), "–"),
        (format_number("as it is"), "as it is"),
        (format_percent(0.846), "85\u202f%"),
        (format_percent(float("nan")), "–"),
        (format_duration(0.42), "0.42\u202fs"),
        (format_duration(3.21), "3.2\u202fs"),
        (format_duration(59.7), "1\u202fmin 00\u202fs"),
        (format_duration(725), "12\u202fmin 05\u202fs"),
        (format_duration(3725), "1\u202fh 02\u202fmin"),
        (format_bytes(5_812_000_000), "5.8\u202fGB"),
        (format_bytes(24_000_000_000), "24\u202fGB"),
        (format_bytes(512), "512\u202fB"),
    ],
)
def test_numbers_are_written_for_readers(formatted, expected):
    assert formatted == expected


def test_columns():
    rows = [("task", "rate"), ("open the drawer", "0.5"), ("go", "")]
    assert format_columns(rows).splitlines() == ["task             rate", "open the drawer  0.5", "go"]


def test_thousands_are_written_so_where_all_are():
    positions = np.arange(3.0)
    assert [tick.label for tick in _label_ticks(positions, np.array([0, 10_000, 20_000]))] == ["0", "10k", "20k"]
    decades = np.array([1.0, 100.0, 10_000.0])
    assert [tick.label for tick in _label_ticks(positions, decades)] == ["1", "100", format_number(10_000)]
