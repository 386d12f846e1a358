"""Intervals over steps and seeds: the steps of a run are alike, so whole runs are resampled, never single steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dashboards.statistics.intervals import CONFIDENCE, Floats, Interval

_RESAMPLES = 2000


def resampled_runs(count: int, seed: int = 0) -> np.ndarray:
    """[resamples, count] indices of runs drawn with replacement."""
    return np.random.default_rng(seed).integers(0, count, (_RESAMPLES, count))


def run_bootstrap(runs: Sequence[Floats], statistic: Callable[[Floats], float], seed: int = 0) -> Interval:
    """``statistic`` of all rows of the runs ([steps, columns] each), with the percentile interval over resampled runs.

    ``count`` is the number of runs; one run has no interval. Resamples of which the statistic is NaN are left out.
    Davison & Hinkley 1997, section 3.8, for resampling whole clusters. Below about six runs it is too narrow.
    """
    estimate = statistic(np.concatenate(runs))
    if len(runs) < 2:
        return Interval(mean=estimate, low=np.nan, high=np.nan, count=len(runs))
    values = [statistic(np.concatenate([runs[index] for index in pick])) for pick in resampled_runs(len(runs), seed)]
    return _percentile(estimate, np.array(values), len(runs))


def mean_over_runs(values: Floats, seed: int = 0) -> Interval:
    """Mean of [runs] values, one a run, with its percentile interval over resampled runs; NaN are left out."""
    return run_bootstrap(
        [np.array([value]) for value in values if not np.isnan(value)], lambda rows: float(rows.mean())
    )


def _percentile(estimate: float, values: Floats, count: int) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return Interval(mean=estimate, low=float(low), high=float(high), count=count)
