"""Formats numbers, intervals and p-values; a dash stands for NaN. HTML is escaped by the templates."""

from __future__ import annotations

import math

from dashboards.statistics.intervals import Interval

NONE = "\u2013"  # an en dash
MINUS = "\u2212"  # the typographic minus sign


def number(value: float, digits: int = 3) -> str:
    """``digits`` decimals near 1, fewer for large numbers, at least two significant figures for small ones (three
    digits or more), powers of ten for tiny ones; a dash for NaN. Typographic minus sign."""
    if math.isnan(value):
        return NONE
    size = abs(value)
    if value == 0:
        text = "0"
    elif size < 1e-4 and digits >= 3:
        text = f"{value:.1e}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.{max(digits - 2, 0)}f}"
    else:
        small = -math.floor(math.log10(size)) + 1 if digits >= 3 else 0
        text = f"{value:.{max(digits, small)}f}"
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """Like :func:`number` with an explicit plus sign."""
    return f"+{number(value, digits)}" if value > 0 else number(value, digits)


def interval_text(interval: Interval, *, sign: bool = False, digits: int = 3) -> str:
    """``low to high``, or a dash where there is no interval."""
    show = signed if sign else number
    return NONE if math.isnan(interval.low) else f"{show(interval.low, digits)} to {show(interval.high, digits)}"


def p_text(p_value: float) -> str:
    """``p = 0.012``, ``p < 0.001`` or ``p not available``."""
    if math.isnan(p_value):
        return "p not available"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def p_number(p_value: float) -> str:
    """The number alone, for a table cell."""
    return p_text(p_value).removeprefix("p = ").removeprefix("p ") if not math.isnan(p_value) else NONE
