"""Means over seeds with intervals, paired differences, effect sizes and corrected p-values.

With few seeds: the t interval assumes normally distributed values and accounts for their unknown standard deviation
(with 3 seeds its half-width is 4.303 standard errors). The bootstrap makes no such assumption, but below about 6 seeds
its interval is too narrow. One seed has no interval. The interval of a quantity with a range (a proportion, an R^2)
lies within that range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import chi2
from scipy.stats import t as student

CONFIDENCE = 0.95
_ENUMERATED = 50_000
"""Up to this many resamples the bootstrap lists all of them and needs no random number."""
_RESAMPLES = 20_000
_NODES = 200

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The values a quantity can take, ends included; infinite where there is no end."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def closed(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def of_differences(self) -> Bounds:
        """The range of the difference of two such quantities."""
        width = self.high - self.low
        return Bounds(low=-width, high=width)


UNBOUNDED = Bounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate in the unit of its metric; ``low`` and ``high`` are NaN where no interval exists."""

    mean: float
    low: float
    high: float
    count: int
    """Number of seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedEffect:
    """Difference of a level and the reference level, over the seeds that both have."""

    difference: Interval
    """Mean paired difference with its t interval, in the metric's unit."""
    bootstrap: Interval
    """The same mean with a percentile bootstrap interval."""
    standardized: Interval
    """Cohen's d_z: mean over standard deviation of the paired differences, with its noncentral-t interval."""
    p_value: float
    """Two-sided paired t test; NaN with fewer than two seeds."""


def finite(values: ArrayLike) -> Floats:
    """[n] float64 without NaN."""
    array: Floats = np.asarray(values, dtype=np.float64).ravel()
    return np.compress(~np.isnan(array), array)


def t_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """mean +- t_{n-1} s / sqrt(n) over the values that are not NaN; no interval below two of them."""
    array = finite(values)
    count = array.size
    if count < 2:
        return Interval(mean=float(array[0]) if count else np.nan, low=np.nan, high=np.nan, count=count)
    mean = float(array.mean())
    half = float(student.ppf(0.5 + confidence / 2, count - 1) * array.std(ddof=1) / np.sqrt(count))
    return Interval(mean=mean, low=mean - half, high=mean + half, count=count)


def bounded_interval(values: ArrayLike, bounds: Bounds, confidence: float = CONFIDENCE) -> Interval:
    """The t interval of a mean whose quantity has a range: :func:`within` it."""
    return within(t_interval(values, confidence), bounds)


def normal_interval(mean: float, standard_error: float, bounds: Bounds, count: int) -> Interval:
    """mean +- 1.96 standard errors, :func:`within` ``bounds``: for an error that is an average over many problems."""
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * standard_error
    return within(Interval(mean=mean, low=mean - half, high=mean + half, count=count), bounds)


def within(interval: Interval, bounds: Bounds) -> Interval:
    """A symmetric interval transformed so that it lies within ``bounds``.

    With two finite bounds the interval is computed on the logit scale by the delta method. With m the mean and h the
    half-width, both rescaled to a range of [0, 1]:

        logit(low), logit(high) = logit(m) -+ h / (m (1 - m))

    Near a bound its coverage stays close to nominal, where clipping loses up to 5 points (a test simulates both). With
    one finite bound the interval is clipped.
    """
    if math.isnan(interval.low) or not bounds.closed or interval.low == interval.high:
        return clipped(interval, bounds)
    width = bounds.high - bounds.low
    middle, half = (interval.mean - bounds.low) / width, (interval.high - interval.mean) / width
    if not 0 < middle < 1:
        return clipped(interval, bounds)
    limits = expit(logit(middle) + np.array([-1.0, 1.0]) * half / (middle * (1 - middle)))
    low, high = (bounds.low + width * limits).tolist()
    return replace(interval, low=low, high=high)


def clipped(interval: Interval, bounds: Bounds) -> Interval:
    """The part of an interval within ``bounds``; coverage stays, because values outside are impossible."""
    if math.isnan(interval.low) or not bounds.low <= interval.mean <= bounds.high:
        return interval  # there is none, or the range was not that of this quantity
    return replace(interval, low=max(interval.low, bounds.low), high=min(interval.high, bounds.high))


def bootstrap_interval(values: ArrayLike, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean: smallest resample means with at least (1 -+ confidence) / 2 below them.

    All n^n resamples up to n = 6, else 20 000 from ``seed``. Efron & Tibshirani 1993, chapter 13.
    """
    array = finite(values)
    count = array.size
    if count < 2:
        return t_interval(array, confidence)
    if count**count <= _ENUMERATED:
        picks = np.indices((count,) * count).reshape(count, -1).T
    else:
        picks = np.random.default_rng(seed).integers(0, count, (_RESAMPLES, count))
    tail = (1 - confidence) / 2
    low, high = np.quantile(array[picks].mean(axis=1), [tail, 1 - tail], method="inverted_cdf")
    return Interval(mean=float(array.mean()), low=float(low), high=float(high), count=count)


def standardized_effect(differences: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """d_z = mean / sd of paired differences; the interval inverts the noncentral t with ncp = d_z sqrt(n).

    NaN below two differences or where they do not vary. Cumming & Finch 2001 for the interval.
    """
    array = finite(differences)
    count = array.size
    spread = float(array.std(ddof=1)) if count > 1 else 0.0
    if spread <= 1e-12 * (abs(float(array.mean())) if count else 1.0):
        return Interval(mean=np.nan, low=np.nan, high=np.nan, count=count)
    effect = float(array.mean()) / spread
    statistic, root = effect * np.sqrt(count), np.sqrt(count)
    tail = (1 - confidence) / 2
    low, high = (_noncentrality(statistic, count - 1, probability) / root for probability in (1 - tail, tail))
    return Interval(mean=effect, low=float(low), high=float(high), count=count)


def _noncentrality(statistic: float, freedom: int, probability: float) -> float:
    """The ncp for which P(T <= statistic) = probability, T noncentral t with ``freedom`` degrees of freedom.

    P = E[Phi(statistic S - ncp)], S = sqrt(chi2 / freedom), by Gauss-Legendre over S's quantiles: it falls smoothly in
    ncp at any size, where library routines lose their digits for large statistics.
    """
    scale, weights = chi_quadrature(freedom)
    reach = [0.0, statistic * float(scale.max())]

    def excess(ncp: float) -> float:
        return float(weights @ ndtr(statistic * scale - ncp)) - probability

    return float(brentq(excess, min(reach) - 10, max(reach) + 10, xtol=1e-6))


@cache
def chi_quadrature(freedom: int) -> tuple[Floats, Floats]:
    """Quantiles of S = sqrt(chi2 / freedom) at the nodes of Gauss-Legendre quadrature on [0, 1], and its weights."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return np.sqrt(chi2.ppf((nodes + 1) / 2, freedom) / freedom), weights / 2


def paired_effect(values: ArrayLike, reference: ArrayLike, bounds: Bounds = UNBOUNDED, seed: int = 0) -> PairedEffect:
    """Compare [n] values with the [n] reference values of the same seeds; pairs with a NaN are left out.

    ``bounds`` is the range of the values. The t interval of the difference is cut off at the largest possible one, so
    that it holds 0 exactly where the paired t test says p > 0.05.
    """
    differences = finite(np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64))
    return PairedEffect(
        difference=clipped(t_interval(differences), bounds.of_differences),
        bootstrap=bootstrap_interval(differences, seed=seed),
        standardized=standardized_effect(differences),
        p_value=paired_p_value(differences),
    )


def paired_p_value(differences: ArrayLike) -> float:
    """Two-sided p of mean(differences) = 0 by the paired t test; 1 where all are exactly 0."""
    array = finite(differences)
    if array.size < 2:
        return float("nan")
    error = array.std(ddof=1) / np.sqrt(array.size)
    if error == 0.0:
        return 1.0 if array[0] == 0.0 else 0.0
    return float(2 * student.sf(abs(array.mean() / error), array.size - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order; NaN stays NaN and does not count. Holm 1979.

    Sorted p_(1) <= ... <= p_(m): adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)).
    """
    tested = sorted((p, index) for index, p in enumerate(p_values) if not np.isnan(p))
    adjusted = [float("nan")] * len(p_values)
    running = 0.0
    for rank, (p, index) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        adjusted[index] = running
    return adjusted
