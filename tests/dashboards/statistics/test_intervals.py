"""Intervals, paired differences and corrections against numbers worked by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import nct

from dashboards.statistics.intervals import (
    Bounds,
    Interval,
    bootstrap_interval,
    bounded_interval,
    clipped,
    holm,
    normal_interval,
    paired_effect,
    paired_p_value,
    standardized_effect,
    t_interval,
)

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


SHARE = Bounds(low=0.0, high=1.0)


def test_a_proportion_has_its_interval_within_0_and_1() -> None:
    # pass@16 of 0.781 and 0.891: t interval 0.836 -+ 12.706 * 0.055 = 0.137 to 1.535. On the logit scale: 1.6290 -+
    # 0.69884 / (0.836 * 0.164) = -3.468 and 6.726.
    interval = bounded_interval([0.781, 0.891], SHARE)
    assert t_interval([0.781, 0.891]).high > 1.5
    assert interval.low == pytest.approx(1 / (1 + math.exp(3.468)), abs=TABLE)
    assert interval.high == pytest.approx(1 / (1 + math.exp(-6.726)), abs=TABLE)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.sampled_from([SHARE, Bounds(low=0.0), Bounds(high=1.0), Bounds(low=-1.0, high=1.0)]),
)
def test_no_interval_leaves_its_range_or_its_mean(values: list[float], bounds: Bounds) -> None:
    interval = bounded_interval(values, bounds)
    if interval.count > 1:
        assert bounds.low <= interval.low <= interval.mean + 1e-12
        assert interval.mean - 1e-12 <= interval.high <= bounds.high


def test_ends_that_all_seeds_share_have_no_width() -> None:
    interval = bounded_interval([1.0, 1.0, 1.0], SHARE)
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_a_mean_outside_its_range_keeps_the_plain_interval() -> None:
    assert bounded_interval([2.0, 3.0, 4.0], SHARE) == t_interval([2.0, 3.0, 4.0])


def test_an_interval_over_problems_is_1_96_errors_on_the_logit_scale() -> None:
    # Mean 0.5, error 0.05: logit 0 -+ 1.96 * 0.05 / 0.25 = 0.392.
    interval = normal_interval(0.5, 0.05, SHARE, count=3)
    assert interval.high == pytest.approx(1 / (1 + math.exp(-0.39199)), abs=1e-5)


def test_a_difference_ends_at_the_largest_possible_one_and_agrees_with_its_p() -> None:
    effect = paired_effect([1.0, 0.6], [0.1, 0.2], SHARE)
    assert effect.difference.high == 1.0 and effect.difference.low < 0 and effect.p_value > 0.05


@pytest.mark.parametrize(("problems", "accuracy"), [(64, 0.5), (64, 0.95), (16, 0.9)])
def test_logit_intervals_of_proportions_cover_where_cut_ones_do_not(problems: int, accuracy: float) -> None:
    # Five seeds, each an accuracy from a beta distribution of sd 0.05 (0.03 near the end) over its own problems.
    generator, spread = np.random.default_rng(2), 0.03 if accuracy > 0.9 else 0.05
    weight = accuracy * (1 - accuracy) / spread**2 - 1
    skill = generator.beta(accuracy * weight, (1 - accuracy) * weight, (2000, 5))
    seeds = generator.binomial(problems, skill) / problems

    def coverage(interval: Callable[[NDArray[np.float64]], Interval]) -> float:
        return float(np.mean([(found := interval(row)).low <= accuracy <= found.high for row in seeds]))

    # Binomial standard error sqrt(0.95 * 0.05 / 2000) = 0.005; three of them, and skewness.
    logit = coverage(lambda row: bounded_interval(row, SHARE))
    cut = coverage(lambda row: clipped(t_interval(row), SHARE))
    assert 0.935 <= logit <= 0.98
    assert cut < logit if accuracy > 0.5 else cut == pytest.approx(logit, abs=0.01)


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
