"""Fits the reward-entropy law R = -a e^H + b to one run, with intervals, and predicts later steps from early ones.

H is ``policy/entropy`` in nats. R is ``rollout/generated_reward``, the mean reward of all sampled responses: under
dynamic sampling the reward of the responses that are kept depends on the selection.

Cui et al. 2025, arXiv 2505.22617, section 2.4. Departure: R is the training reward of every step, where the paper takes
the validation score of every fourth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import t as student

from dashboards.statistics.intervals import CONFIDENCE, Floats, Interval

EARLY_FRAC = 0.15
EARLY_STEPS = 36
"""Lengths of the initial part from which the paper predicts the rest (36 steps were 15 % of its runs)."""
_MIN_POINTS = 3
_ROUNDING = 1e-24
"""Residuals whose sum of squares is below this fraction of the reward's are rounding errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A least-squares fit of R = -a e^H + b. ``count`` of the intervals is the number of steps."""

    a: Interval
    """Negative slope: reward gained per unit decrease of e^H."""
    b: Interval
    """Intercept."""
    ceiling: Interval
    """b - a: the reward at H = 0."""
    r_squared: Interval
    """Coefficient of determination; NaN where the reward does not vary."""

    def reward(self, entropy: ArrayLike) -> Floats:
        """Predicted reward at ``entropy`` (nats), any shape."""
        return -self.a.mean * np.exp(np.asarray(entropy, dtype=np.float64)) + self.b.mean


def fit_law(entropy: ArrayLike, reward: ArrayLike) -> Law | None:
    """Least squares of [n] reward on e^[n] entropy in order of steps; None below 3 finite points or where entropy does
    not vary.

    Residuals of consecutive steps are correlated, so the intervals use an effective number of steps: with r the lag-1
    autocorrelation of the residuals, corrected for its bias and not below 0,

        n_eff = n (1 - r) / (1 + r),      r = r_1 + (2 + 4 r_1) / n

    The correction is Orcutt & Winokur's 1969, for residuals of a line. a, b and b - a have t intervals with n_eff - 2
    degrees of freedom; R^2 has that of the correlation by Fisher's z with n_eff steps.
    """
    x, y = _finite_pairs(entropy, reward)
    if x.size < _MIN_POINTS or np.ptp(x) < 1e-12:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    offset = float(y.mean() - slope * x.mean())
    residuals = dy - slope * dx
    if float(residuals @ residuals) <= _ROUNDING * float(dy @ dy):
        residuals = np.zeros_like(residuals)
    steps = _effective_steps(residuals)
    variance = float(residuals @ residuals) / x.size / (steps - 2) if steps > 2 else math.nan

    def interval(value: float, at: float, level: float) -> Interval:
        """Of ``level * (mean of y) + slope * at``."""
        error = math.sqrt(variance * (level + at**2 / float(dx @ dx / x.size)))
        half = float(student.ppf(0.5 + CONFIDENCE / 2, steps - 2)) * error
        return Interval(mean=value, low=value - half, high=value + half, count=x.size)

    return Law(
        a=interval(-slope, 1.0, 0.0),
        b=interval(offset, float(x.mean()), 1.0),
        ceiling=interval(offset + slope, 1.0 - float(x.mean()), 1.0),
        r_squared=_r_squared(dx, dy, residuals, steps),
    )


def prediction_error(entropy: ArrayLike, reward: ArrayLike, steps: int) -> float:
    """RMSE over the steps after the first ``steps`` of a run, in reward units, by the law fitted on those.

    The entropy of the later steps is given: the law maps entropy to reward and does not forecast entropy. NaN if the
    first steps allow no fit or there are no later ones.
    """
    x, y = np.asarray(entropy, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    law = fit_law(x[:steps], y[:steps]) if x.size > steps else None
    if law is None:
        return math.nan
    return float(np.sqrt(np.nanmean((law.reward(x[steps:]) - y[steps:]) ** 2)))


def early_steps(count: int) -> int:
    """The first 15 % of ``count`` steps, and no fewer than a fit needs."""
    return max(_MIN_POINTS, math.ceil(EARLY_FRAC * count))


def _finite_pairs(entropy: ArrayLike, reward: ArrayLike) -> tuple[Floats, Floats]:
    """e^H and R of the steps at which both are finite."""
    x, y = np.exp(np.asarray(entropy, dtype=np.float64)), np.asarray(reward, dtype=np.float64)
    keep = np.isfinite(x) & np.isfinite(y)
    return x[keep], y[keep]


def _effective_steps(residuals: Floats) -> float:
    """n_eff of :func:`fit_law`."""
    count, square = residuals.size, float(residuals @ residuals)
    if square == 0.0:
        return float(count)
    lag = float(residuals[1:] @ residuals[:-1]) / square
    correlation = min(max(lag + (2 + 4 * lag) / count, 0.0), 0.99)
    return count * (1 - correlation) / (1 + correlation)


def _r_squared(dx: Floats, dy: Floats, residuals: Floats, steps: float) -> Interval:
    """Squared correlation of centred [n] dx and dy; its interval ends at 0 where the correlation's holds 0."""
    spread, count = float(dy @ dy), dx.size
    r_squared = 1 - float(residuals @ residuals) / spread if spread > 0 else math.nan
    if r_squared == 1.0:
        return Interval(mean=1.0, low=1.0, high=1.0, count=count)
    if math.isnan(r_squared) or steps <= 3:
        return Interval(mean=r_squared, low=math.nan, high=math.nan, count=count)
    z, half = math.atanh(math.sqrt(max(r_squared, 0.0))), float(ndtri(0.5 + CONFIDENCE / 2)) / math.sqrt(steps - 3)
    low, high = math.tanh(z - half), math.tanh(z + half)
    return Interval(mean=r_squared, low=max(low, 0.0) ** 2, high=high**2, count=count)
