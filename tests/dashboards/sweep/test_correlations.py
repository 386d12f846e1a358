"""Entropy against the other metrics: rank correlations within runs and across levels, one number a seed."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from dashboards.sweep.correlations import (
    across_levels,
    against_entropy,
    compared_with_entropy,
    rank_correlation,
    within_runs,
)
from dashboards.sweep.load import SweepData


def test_ranks_are_compared_and_too_few_or_constant_values_have_no_correlation() -> None:
    pairs = np.array([[1.0, 10.0], [2.0, 100.0], [3.0, 90.0], [4.0, 1e6], [5.0, 1e9]])
    # Ranks 1..5 against 1, 3, 2, 4, 5: 1 - 6 (1 + 1) / (5 (25 - 1)) = 0.9.
    assert rank_correlation(pairs, 5) == pytest.approx(0.9)
    assert math.isnan(rank_correlation(pairs, 6))
    pairs[:, 1] = 1.0
    assert math.isnan(rank_correlation(pairs, 5))


def test_the_runs_of_a_seed_count_as_one() -> None:
    up, down = np.arange(5.0), np.arange(5.0)[::-1]
    rising, falling = (pd.DataFrame({"e": np.arange(5.0), "m": values}) for values in (up, down))
    gaps = rising.assign(m=[0.0, math.nan, 1.0, 2.0, 3.0])  # four steps have both: no correlation
    found = within_runs([(0, rising), (0, falling), (1, falling), (2, gaps)], "e", "m")
    assert found == pytest.approx([0.0, -1.0])
    assert within_runs([(0, rising)], "e", "absent") == []


def test_levels_are_compared_within_a_seed() -> None:
    entropy = pd.DataFrame([[1.0, 2.0, 3.0, 4.0]] * 3, index=[20, 21, 22])
    # Seed 20 rises; 21 has 2, 1, 4, 3: 1 - 6 * 4 / (4 * 15) = 0.6; 22 lacks a level.
    metric = pd.DataFrame([[5.0, 6.0, 7.0, 8.0], [2.0, 1.0, 4.0, 3.0], [1.0, 2.0, 3.0, math.nan]], index=[20, 21, 22])
    assert across_levels(entropy, metric) == pytest.approx([1.0, 0.6])


def test_suites_have_rows_of_their_own_and_only_what_was_logged() -> None:
    logged = [
        "policy/entropy",
        "diversity/ngram",
        "eval/a/pass_at_1",
        "eval/a/pass_at_4",
        "eval/b/ece",
        "eval/b/avg_at_4",
    ]
    assert compared_with_entropy(logged) == [
        "diversity/ngram", "eval/a/pass_at_1", "eval/a/pass_at_4", "eval/b/avg_at_4", "eval/b/ece",
    ]  # fmt: skip


def test_a_sweep_gives_intervals_over_its_seeds(sweep: SweepData) -> None:
    by_key = {item.metric.key: item for item in against_entropy(sweep)}
    assert by_key, "the helper's sweep logs metrics beside the entropy"
    for item in by_key.values():
        for interval in (item.within, item.across):
            assert math.isnan(interval.mean) or -1 <= interval.low <= interval.mean <= interval.high <= 1
