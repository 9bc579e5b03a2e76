# SPDX-License-Identifier: Apache-2.0
"""Geometry of the report's charts. The numbers are worked out here; the template only draws them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .formatting import format_number, format_scientific

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 38
# More points than this are not visible at the chart's size, and would only weigh on the page.
MAX_POINTS = 600


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        label (`str`): Name in the legend.
        steps (`Sequence[float]` of length `n`): Horizontal positions, ascending.
        values (`Sequence[float]` of length `n`): Vertical positions. Values that are not finite, and those at or below
            zero on a log scale, are gaps in the line.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values):
            raise ValueError(
                f"steps and values of series {self.label!r} must have the same length, "
                f"got {len(self.steps)} and {len(self.values)}"
            )


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: `position` in the chart's units, `label` as read."""

    position: float
    label: str


@dataclass(frozen=True)
class Line:
    """A drawn series: SVG path data of the smoothed and the raw line, and the last smoothed value."""

    label: str
    smooth: str
    raw: str
    last: str


@dataclass(frozen=True)
class LineChart:
    """Everything the template needs to draw one chart; `lines` is empty where there is nothing to draw."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    top: int = TOP
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def line_chart(series: Sequence[Series], log_scale: bool = False) -> LineChart:
    """Lay out a chart of one or more series.

    Args:
        series (`Sequence[Series]`): The lines; empty ones, and those without a value to draw, keep their place in the
            legend and draw nothing.
        log_scale (`bool`, *optional*, defaults to `False`): Whether the vertical axis is logarithmic, base 10.

    Returns:
        [`LineChart`]: Positions in a box of `WIDTH` by `HEIGHT` units, from the top left corner.
    """
    prepared = [_prepare(line, log_scale) for line in series]
    steps = np.concatenate([steps[np.isfinite(raw)] for steps, raw, _ in prepared] or [np.empty(0)])
    if steps.size == 0:
        return LineChart((), (), tuple(Line(line.label, "", "", format_number(None)) for line in series))
    x_low, x_high = _widen(float(steps.min()), float(steps.max()), 0.0)
    y_low, y_high = _vertical_range(prepared)
    if not log_scale and 0 < y_low < 0.5 * y_high:
        # A loss that falls far is read against zero.
        y_low = 0.0

    def place(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across = LEFT + (xs - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (y_high - ys) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    lines = []
    for line, (xs, raw, smooth) in zip(series, prepared, strict=True):
        known = smooth[np.isfinite(smooth)]
        last = None if known.size == 0 else 10.0 ** known[-1] if log_scale else known[-1]
        lines.append(Line(line.label, _path(*place(xs, smooth)), _path(*place(xs, raw)), format_number(last)))
    x_values = np.array(nice_ticks(x_low, x_high, 6))
    y_values = np.array(log_ticks(y_low, y_high) if log_scale else nice_ticks(y_low, y_high, 5))
    across, _ = place(x_values, np.zeros_like(x_values))
    _, down = place(np.zeros_like(y_values), np.log10(y_values) if log_scale else y_values)
    return LineChart(_label_ticks(across, x_values), _label_ticks(down, y_values), tuple(lines))


def smooth_values(values: np.ndarray) -> np.ndarray:
    """Smooth with a centred Gaussian a fortieth of the series wide, over the finite values; gaps stay gaps."""
    sigma = len(values) / 40
    if sigma < 1:
        return values.copy()
    reach = int(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), kernel, mode="full")[reach : reach + len(values)]
    # Dividing by the weight that fell on known values keeps the ends and the edges of gaps unbiased.
    weight = np.convolve(known.astype(float), kernel, mode="full")[reach : reach + len(values)]
    return np.where(known, total / np.where(known, weight, 1.0), np.nan)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round values at steps of 1, 2 or 5 times a power of ten, about `count` of them, inside `[low, high]`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda size: abs((high - low) / size - count))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounding takes away what binary fractions add: 0.30000000000000004.
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between `10**low` and `10**high`, with their doubles and fives where fewer than three fit."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    step = max(1, math.ceil((high - low) / 6))
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [factor * 10.0**d for d in decades if d % step == 0 for factor in factors]
        ticks = [tick for tick in ticks if low - 1e-9 <= math.log10(tick) <= high + 1e-9]
        if len(ticks) >= 3:
            return ticks
    return ticks if len(ticks) >= 2 else [t for t in nice_ticks(10.0**low, 10.0**high, 4) if t > 0]


def _prepare(line: Series, log_scale: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, raw and smoothed values of a line, in the chart's vertical scale, with `nan` for gaps."""
    steps, raw = np.asarray(line.steps, dtype=np.float64), np.asarray(line.values, dtype=np.float64).copy()
    raw[~(np.isfinite(raw) & np.isfinite(steps))] = np.nan
    if log_scale:
        raw = np.log10(np.where(raw > 0, raw, np.nan))
    return steps, raw, smooth_values(raw)


def _vertical_range(prepared: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """The smoothed lines whole, and all but the wildest hundredth of the raw points, so a spike cannot flatten them."""
    lows, highs = [], []
    for _, raw, smooth in prepared:
        if np.isfinite(raw).any():
            lows.append(min(np.nanmin(smooth), np.nanpercentile(raw, 1)))
            highs.append(max(np.nanmax(smooth), np.nanpercentile(raw, 99)))
    return _widen(float(min(lows)), float(max(highs)), 0.05)


def _widen(low: float, high: float, margin: float) -> tuple[float, float]:
    """Add a margin on both sides; a single value gets a range around it."""
    span = high - low
    if span <= 1e-12 * max(1.0, abs(low)):
        return low - max(0.5, abs(low) * 0.1), high + max(0.5, abs(high) * 0.1)
    return low - margin * span, high + margin * span


def _path(xs: np.ndarray, ys: np.ndarray) -> str:
    """SVG path data through the finite points, thinned to `MAX_POINTS`; a gap starts a new stroke."""
    places = np.linspace(0, len(xs) - 1, min(len(xs), MAX_POINTS)) if len(xs) else np.zeros(0)
    keep = np.unique(places.astype(int))
    commands, drawing = [], False
    for x, y in zip(xs[keep], ys[keep], strict=True):
        finite = bool(np.isfinite(x) and np.isfinite(y))
        if finite:
            # A stroke of no length after each start makes a lone point visible as a dot.
            commands.append(f"L{x:.1f} {y:.1f}" if drawing else f"M{x:.1f} {y:.1f}h0")
        drawing = finite
    return "".join(commands)


def _label_ticks(positions: np.ndarray, values: np.ndarray) -> tuple[Tick, ...]:
    """Labels in one unit along an axis: thousands as `k` only where all of them are."""
    sizes = np.abs(values[values != 0])
    thousands = sizes.size > 0 and sizes.max() >= 1e4 and sizes.min() >= 1e3

    def label(value: float) -> str:
        if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
            return format_scientific(value)
        if thousands and value != 0:
            return f"{value / 1000:g}k"
        return format_number(value) if abs(value) >= 1000 else f"{value:.6g}"

    # Where ticks are closer than these round to, all their digits.
    if len({label(value) for value in values.tolist()}) < values.size:
        label = "{:.12g}".format

    pairs = zip(positions.tolist(), values.tolist(), strict=True)
    return tuple(Tick(position, label(value)) for position, value in pairs)
