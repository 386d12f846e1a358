"""Intervals, paired differences and corrections against numbers worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nct

from dashboards.stats import bootstrap_interval, holm, paired_effect, paired_p_value, standardized_effect, t_interval

EXACT = 1e-9
TABLE = 5e-4
"""Student's t from a printed table has four digits."""


def test_t_interval_of_three_seeds_is_4_303_standard_errors_wide() -> None:
    # mean 2, sd 1, standard error 1/sqrt(3) = 0.57735, t_{0.975,2} = 4.3027: half-width 2.4841.
    interval = t_interval([1.0, 2.0, 3.0])
    assert interval.mean == pytest.approx(2.0, abs=EXACT)
    assert interval.high - 2.0 == pytest.approx(2.4841, abs=TABLE)
    assert 2.0 - interval.low == pytest.approx(2.4841, abs=TABLE)
    assert interval.count == 3


def test_one_seed_has_a_mean_but_no_interval() -> None:
    for interval in (t_interval([0.4]), bootstrap_interval([0.4])):
        assert interval.mean == 0.4 and interval.count == 1
        assert math.isnan(interval.low) and math.isnan(interval.high)


def test_no_value_has_neither() -> None:
    interval = t_interval([np.nan])
    assert interval.count == 0 and math.isnan(interval.mean)


def test_missing_seeds_are_left_out() -> None:
    assert t_interval([1.0, np.nan, 3.0]) == t_interval([1.0, 3.0])


def test_t_interval_covers_95_percent_of_normal_samples_of_three() -> None:
    draws = np.random.default_rng(5).normal(size=(4000, 3))
    covered = np.mean([interval.low <= 0 <= interval.high for interval in map(t_interval, draws)])
    # Binomial standard error sqrt(0.95 * 0.05 / 4000) = 0.0034; four of them.
    assert covered == pytest.approx(0.95, abs=0.014)


def test_bootstrap_of_three_lists_all_27_resamples() -> None:
    # Values 0, 0, 3: the number of 3s in a resample is Binomial(3, 1/3), so the mean is 0, 1, 2, 3 with probability
    # 8/27, 12/27, 6/27, 1/27.
    # P(mean <= 2) = 26/27 = 0.963 < 0.975, so the upper end is 3; P(mean <= 0) = 0.296 > 0.025, so the lower one is 0.
    interval = bootstrap_interval([0.0, 0.0, 3.0])
    assert (interval.low, interval.mean, interval.high) == (0.0, 1.0, 3.0)
    # At 90 % the upper tail is 0.05 > 1/27, so the end is the mean 2.
    assert bootstrap_interval([0.0, 0.0, 3.0], confidence=0.9).high == 2.0


def test_bootstrap_of_many_is_seeded_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(size=200)
    first, second = bootstrap_interval(values, seed=3), bootstrap_interval(values, seed=3)
    assert first == second
    half = 1.96 * values.std(ddof=1) / math.sqrt(200)
    assert first.high - first.mean == pytest.approx(half, rel=0.06)


def test_paired_effect_cancels_what_seeds_share() -> None:
    # Seeds differ by tens, levels by 1, 2 and 3: mean difference 2, sd 1, d_z = 2, t = 2 sqrt(3) = 3.4641.
    # Two-sided p with 2 degrees of freedom: 1 - t / sqrt(t^2 + 2) = 1 - 3.4641 / sqrt(14) = 0.07418.
    effect = paired_effect([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert effect.difference.mean == pytest.approx(2.0, abs=EXACT)
    assert effect.difference.low == pytest.approx(2 - 2.4841, abs=TABLE)
    assert effect.standardized.mean == pytest.approx(2.0, abs=EXACT)
    assert effect.p_value == pytest.approx(1 - 3.4641016 / math.sqrt(14), abs=1e-6)


def test_pairs_with_a_missing_partner_do_not_count() -> None:
    effect = paired_effect([1.0, np.nan, 3.0], [0.0, 0.0, np.nan])
    assert effect.difference.count == 1 and math.isnan(effect.p_value)


def test_equal_levels_are_no_evidence() -> None:
    # An inert factor gives bit-equal runs: every difference is 0, so p is 1 and no standardized effect exists.
    effect = paired_effect([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert effect.p_value == 1.0
    assert (effect.difference.low, effect.difference.high) == (0.0, 0.0)
    assert math.isnan(effect.standardized.mean)


@pytest.mark.parametrize("differences", [[1.0, 2.0, 3.0], [0.5, -0.2, 0.1, 0.4], [-3.0, -2.0, -2.5]])
def test_effect_size_interval_inverts_the_noncentral_t(differences: list[float]) -> None:
    interval, count = standardized_effect(differences), len(differences)
    statistic, root = interval.mean * math.sqrt(count), math.sqrt(count)
    assert nct.cdf(statistic, count - 1, interval.low * root) == pytest.approx(0.975, abs=1e-4)
    assert nct.cdf(statistic, count - 1, interval.high * root) == pytest.approx(0.025, abs=1e-4)


def test_effect_size_interval_survives_a_huge_effect() -> None:
    interval = standardized_effect([1.0, 1.001, 0.999])
    assert interval.low < interval.mean < interval.high < math.inf


def test_paired_p_is_two_sided() -> None:
    assert paired_p_value([1.0, 2.0, 3.0]) == pytest.approx(paired_p_value([-1.0, -2.0, -3.0]), abs=EXACT)


def test_holm_steps_down() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1 = 0.03, 0.06, 0.04; made monotone: 0.03, 0.06, 0.06.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06], abs=EXACT)


def test_holm_leaves_untested_metrics_out_of_the_count() -> None:
    adjusted = holm([0.02, float("nan"), 0.5])
    assert adjusted[0] == pytest.approx(0.04, abs=EXACT) and math.isnan(adjusted[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert all(adjusted[i] <= adjusted[j] for i, j in itertools.pairwise(order))
