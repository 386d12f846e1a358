"""Whole runs are resampled: by hand, invariant to repeated steps, and with the coverage that this promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from dashboards.statistics.clusters import mean_over_runs, run_bootstrap


def mean(rows: np.ndarray) -> float:
    return float(rows.mean())


def test_two_runs_by_hand() -> None:
    # Resamples of runs with values 0 and 1 have the means 0, 1/2 and 1 with chances 1/4, 1/2 and 1/4.
    found = mean_over_runs(np.array([0.0, 1.0, np.nan]))
    assert (found.mean, found.low, found.high, found.count) == (0.5, 0.0, 1.0, 2)


def test_one_run_has_no_interval() -> None:
    found = run_bootstrap([np.array([[1.0], [3.0]])], mean)
    assert found.mean == 2.0 and math.isnan(found.low) and found.count == 1


def test_more_steps_of_the_same_do_not_narrow_the_interval() -> None:
    runs = [np.array([[float(value)], [value + 0.1]]) for value in (1, 2, 4, 7)]
    once, tenfold = run_bootstrap(runs, mean), run_bootstrap([np.repeat(run, 10, axis=0) for run in runs], mean)
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))
    assert once.high - once.low > 2


def test_coverage_with_steps_that_are_alike() -> None:
    """Twelve runs of 20 steps, most of the variance between runs; the interval is to hold the mean in 92 to 95 %."""
    draws, trials, hits = np.random.default_rng(3), 200, 0
    for trial in range(trials):
        runs = [draws.normal() + 0.3 * draws.normal(size=(20, 1)) for _ in range(12)]
        found = run_bootstrap(runs, mean, seed=trial)
        hits += found.low <= 0 <= found.high
    assert binom.ppf(0.001, trials, 0.92) <= hits <= binom.ppf(0.999, trials, 0.95)
