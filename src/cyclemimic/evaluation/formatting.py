# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them: figures, percentages, durations, sizes; and rows of them as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

MISSING = "–"
THIN_SPACE = "\u202f"


def format_number(value: float | int | str | None, digits: int = 3) -> str:
    """Format a figure to a few significant digits, in words a reader does not have to decode.

    Args:
        value (`float`, `int`, `str` or `None`): The figure. Text passes unchanged; `None` and values that are not
            finite become a dash.
        digits (`int`, *optional*, defaults to 3): Significant digits of a fraction.

    Returns:
        `str`: For example `"0.0123"`, `"12 400"` (thin space) or `"3.2 × 10⁻⁶"`.
    """
    if value is None or isinstance(value, str):
        return MISSING if value is None else value
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", THIN_SPACE)
    if abs(value) < 1e-4:
        return format_scientific(value, digits - 1)
    if float(value).is_integer():
        return f"{value:.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def format_scientific(value: float, digits: int = 2) -> str:
    """Write `value` as a mantissa and a raised power of ten, `"3.2 × 10⁻⁶"`; a mantissa of one is left out."""
    mantissa, exponent = f"{value:.{max(0, digits - 1)}e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"10{raised}" if mantissa == "1" else f"{mantissa} × 10{raised}"


def format_percent(fraction: float | None) -> str:
    """Format a fraction in [0, 1] as a whole percentage, `"85 %"`."""
    if fraction is None or not math.isfinite(fraction):
        return MISSING
    return f"{100 * fraction:.0f}{THIN_SPACE}%"


def format_duration(seconds: float | None) -> str:
    """Format a time span in its two leading units: `"0.42 s"`, `"12 min 05 s"`, `"1 h 02 min"`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.2g}{THIN_SPACE}s" if seconds < 1 else f"{seconds:.1f}{THIN_SPACE}s"
    # Rounding comes first: 59.7 s is one minute, never "60 s".
    total = round(seconds)
    hours, minutes, rest = total // 3600, total % 3600 // 60, total % 60
    if hours:
        return f"{hours}{THIN_SPACE}h {minutes:02d}{THIN_SPACE}min"
    return f"{minutes}{THIN_SPACE}min {rest:02d}{THIN_SPACE}s" if minutes else f"{rest}{THIN_SPACE}s"


def format_bytes(size: float | None) -> str:
    """Format a number of bytes in decimal units, `"5.8 GB"`."""
    if size is None or not math.isfinite(size):
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{format_number(size / scale, 2)}{THIN_SPACE}{unit}"
    return f"{size:.0f}{THIN_SPACE}B"


def format_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each, as lines of text with the columns below one another, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
