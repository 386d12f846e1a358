"""Trend tests against numbers worked by hand and by listing every order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.statistics.trend import friedman_p, page_trend

EXACT = 1e-9


def test_page_statistic_and_exact_p_of_two_rising_seeds() -> None:
    # L = 2 (1*1 + 2*2 + 3*3) = 28; E = 2*3*16/4 = 24. One order of 36 reaches 28, one reaches 20: p = 2/36.
    trend = page_trend([[0.1, 0.2, 0.3], [5.0, 6.0, 9.0]])
    assert (trend.statistic, trend.expected) == (28.0, 24.0)
    assert trend.p_value == pytest.approx(2 / 36, abs=EXACT)
    assert trend.smallest_p == pytest.approx(2 / 36, abs=EXACT)


def test_page_p_with_ties_permutes_the_ties() -> None:
    # Ranks 1.5, 1.5, 3: L = 1.5 + 3 + 9 = 13.5, E = 12. Orders give 13.5, 12 or 10.5, a third each: p = 2/3.
    trend = page_trend([[1.0, 1.0, 2.0]])
    assert trend.statistic == 13.5
    assert trend.p_value == pytest.approx(2 / 3, abs=EXACT)


def test_falling_levels_have_the_same_p_and_a_smaller_statistic() -> None:
    trend = page_trend([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert trend.statistic < trend.expected
    assert trend.p_value == pytest.approx(2 / 36, abs=EXACT)


def test_seeds_without_every_level_are_left_out() -> None:
    trend = page_trend([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
    assert trend.seeds == 1 and trend.statistic == 14.0


def test_no_complete_seed_gives_no_p() -> None:
    assert math.isnan(page_trend([[1.0, np.nan]]).p_value)


def test_nine_levels_are_sampled_and_a_perfect_order_is_rare() -> None:
    trend = page_trend([list(range(9))] * 2)
    # No drawn order reaches the extreme: (1 + 0) / (1 + 20000).
    assert trend.p_value == pytest.approx(1 / 20001, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=2))
def test_page_p_equals_listing_every_order(rows: list[list[int]]) -> None:
    table = np.asarray(rows, dtype=float)
    observed = page_trend(table)
    distance = abs(observed.statistic - observed.expected)
    orders = [list(itertools.permutations(row)) for row in rows]
    reached = [
        abs(page_trend(list(pair)).statistic - observed.expected) >= distance - 1e-9
        for pair in itertools.product(*orders)
    ]
    assert observed.p_value == pytest.approx(np.mean(reached), abs=EXACT)


def test_friedman_of_three_agreeing_seeds() -> None:
    # The first seed's order is free, the other two must repeat it or any relabelling alike: P = (1/6)^2 = 0.0278.
    # Standard error of 20 000 draws: 0.0012.
    assert friedman_p([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) == pytest.approx(1 / 36, abs=0.005)


def test_friedman_of_cancelling_seeds_is_one() -> None:
    assert friedman_p([[1, 2], [2, 1]]) == pytest.approx(1.0, abs=1e-4)


def test_friedman_needs_two_seeds() -> None:
    assert math.isnan(friedman_p([[1, 2, 3]]))
