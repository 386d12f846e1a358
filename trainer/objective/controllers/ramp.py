"""Interpolation between two values over a part of a run: pure functions that the schedules share."""

from __future__ import annotations

import math
from typing import Literal

from trainer.contract.settings import require

Curve = Literal["linear", "cosine"]


def interpolate(start: float, end: float, fraction: float, curve: Curve) -> float:
    """From ``start`` (fraction 0) to ``end`` (fraction 1): in a straight line, or along half a cosine."""
    if curve == "linear":
        return start + (end - start) * fraction
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


def ramp_fraction(progress: float, from_frac: float, until_frac: float) -> float:
    """``clip((progress - from_frac) / (until_frac - from_frac), 0, 1)``; a jump at ``from_frac`` where both agree."""
    if from_frac == until_frac:
        return float(progress >= until_frac)
    return min(max((progress - from_frac) / (until_frac - from_frac), 0.0), 1.0)


def require_span(name: str, from_frac: float, until_frac: float) -> None:
    """Refuse a span that is no part of a run, naming the controller's fields."""
    require(
        0 <= from_frac <= until_frac <= 1,
        f"controller.{name}.from_frac",
        from_frac,
        f"give shares of the run with 0 <= from_frac <= until_frac <= 1; controller.{name}.until_frac={until_frac}",
    )
