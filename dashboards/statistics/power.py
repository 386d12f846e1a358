"""What a number of seeds can show: power of the paired t test, smallest effect that it finds, seeds that would decide.

The spread is the standard deviation of the paired differences of the seeds at hand, taken for that of all seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import t as student

from dashboards.statistics.intervals import CONFIDENCE, chi_quadrature

POWER = 0.8
"""The chance of finding an effect from which on it counts as one that the seeds could have shown."""
MAX_SEEDS = 1000
"""Beyond this many a number of seeds is not computed."""


def detection_power(effect: float, spread: float, count: int) -> float:
    """Chance that a two-sided 5 % paired t test of ``count`` differences finds their mean ``effect``.

    With ncp = effect sqrt(n) / spread and T noncentral t with n - 1 degrees of freedom: P(|T| > t_{n-1, 0.975}).
    ``effect`` and ``spread`` (above 0) are in the unit of the metric; ``count`` is at least 2.
    """
    scale, weights = chi_quadrature(count - 1)
    shift, bar = effect * math.sqrt(count) / spread, _critical(count) * scale
    return float(weights @ (ndtr(shift - bar) + ndtr(-shift - bar)))


def equivalence_power(effect: float, spread: float, margin: float, count: int) -> float:
    """Chance that the 95 % t interval of ``count`` differences of mean ``effect`` lies within +-``margin``.

    P(|mean| + t s / sqrt(n) <= margin), mean and s independent: the integral over s of a normal probability.
    """
    scale, weights = chi_quadrature(count - 1)
    root = math.sqrt(count) / spread
    room = margin * root - _critical(count) * scale
    inside = ndtr(room - effect * root) - ndtr(-room - effect * root)
    return float(weights @ np.where(room > 0, inside, 0.0))


def detectable_effect(spread: float, count: int) -> float:
    """The effect that ``count`` seeds find with a chance of :data:`POWER`, in the unit of ``spread``."""
    top = 2.0 * _critical(count)  # ncp: power above 0.8 even for the heavy tail of one degree of freedom
    ncp = brentq(lambda ncp: detection_power(ncp / math.sqrt(count), 1.0, count) - POWER, 0.0, top)
    return float(ncp) / math.sqrt(count) * spread


def seeds_to_detect(effect: float, spread: float) -> int | None:
    """The fewest seeds that find ``effect`` with a chance of :data:`POWER`; None where :data:`MAX_SEEDS` do not."""
    return _fewest(lambda count: detection_power(effect, spread, count))


def seeds_to_equivalence(effect: float, spread: float, margin: float) -> int | None:
    """The fewest seeds whose interval lies within +-``margin`` with a chance of :data:`POWER`, the difference being
    ``effect``; None where :data:`MAX_SEEDS` are not enough."""
    return _fewest(lambda count: equivalence_power(effect, spread, margin, count))


def _fewest(power: Callable[[int], float]) -> int | None:
    """Bisection: power grows with the number of seeds."""
    low, high = 1, MAX_SEEDS
    if power(high) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def _critical(count: int) -> float:
    """The quantile of Student's t that the interval of ``count`` differences uses."""
    return float(student.ppf(0.5 + CONFIDENCE / 2, count - 1))
