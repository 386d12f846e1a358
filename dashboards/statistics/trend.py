"""Rank tests of a value over levels, within seeds: Page's trend test (ordered levels) and Friedman's (unordered).

A table is [S seeds, K levels] without gaps. Values are ranked within a seed, which removes differences between seeds.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from dashboards.statistics.intervals import Floats

_EXACT_LEVELS = 8
"""Up to 8 levels all K! orders of a seed are listed (40 320); above, random orders are drawn."""
_DRAWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Result of Page's test."""

    statistic: float
    """L = sum over seeds and levels of level position (1..K) times rank within the seed."""
    expected: float
    """L when levels make no difference: S K (K+1)^2 / 4."""
    p_value: float
    """Two-sided permutation p: chance of an L at least as far from ``expected``. NaN below two levels or no seed."""
    smallest_p: float
    """The smallest p this many seeds and levels can reach: 2 / (K!)^S."""
    seeds: int


def complete_rows(table: ArrayLike) -> Floats:
    """The [S', K] rows without NaN."""
    array = np.atleast_2d(np.asarray(table, dtype=np.float64))
    return array[~np.isnan(array).any(axis=1)]


def page_trend(table: ArrayLike, seed: int = 0) -> Trend:
    """Page's test for ordered alternatives on [S seeds, K levels], exact within-seed permutation p (K <= 8), two-sided.

    Page 1963. Rows with a NaN are left out. Ties get middle ranks and the permutation keeps them, so the p stays exact.
    """
    rows = complete_rows(table)
    seeds, levels = rows.shape
    expected = seeds * levels * (levels + 1) ** 2 / 4
    nothing = seeds == 0 or levels < 2
    ranks = rankdata(rows, axis=1) if not nothing else rows
    statistic = float((ranks * np.arange(1, levels + 1)).sum())
    return Trend(
        statistic=statistic,
        expected=expected,
        p_value=math.nan if nothing else _page_p(ranks, abs(statistic - expected), seed),
        smallest_p=math.nan if nothing else min(1.0, 2 / math.factorial(levels) ** seeds),
        seeds=seeds,
    )


def _page_p(ranks: Floats, distance: float, seed: int) -> float:
    """P(|L - E| >= distance) with every seed's ranks in random order."""
    if ranks.shape[1] > _EXACT_LEVELS:
        return _page_p_sampled(ranks, distance, seed)
    # Twice the middle ranks are whole numbers, so L has a distribution on a grid that convolution adds up exactly.
    total: Floats = np.ones(1)
    for row in ranks:
        total = np.asarray(
            np.convolve(total, _row_distribution(tuple(sorted(round(2 * rank) for rank in row.tolist())))),
            dtype=np.float64,
        )
    grid = np.arange(total.size) / 2
    expected = ranks.shape[0] * ranks.shape[1] * (ranks.shape[1] + 1) ** 2 / 4
    return float(min(1.0, total[np.abs(grid - expected) >= distance - 1e-9].sum()))


@functools.cache
def _row_distribution(doubled: tuple[int, ...]) -> Floats:
    """Probability of each value of sum_j j * doubled[order_j] over all orders; index is the value."""
    orders = np.array(list(itertools.permutations(doubled)), dtype=np.int64)
    counts = np.bincount(orders @ np.arange(1, len(doubled) + 1))
    return np.asarray(counts / len(orders), dtype=np.float64)


def _page_p_sampled(ranks: Floats, distance: float, seed: int) -> float:
    generator = np.random.default_rng(seed)
    weights = np.arange(1, ranks.shape[1] + 1)
    expected = ranks.shape[0] * ranks.shape[1] * (ranks.shape[1] + 1) ** 2 / 4
    draws = np.zeros(_DRAWS)
    for row in ranks:
        draws += generator.permuted(np.broadcast_to(row, (_DRAWS, row.size)), axis=1) @ weights
    return float((1 + np.sum(np.abs(draws - expected) >= distance - 1e-9)) / (1 + _DRAWS))


def friedman_p(table: ArrayLike, seed: int = 0) -> float:
    """P that levels (in no order) differ this much: Friedman's statistic under random orders within seeds.

    Statistic: sum over levels of (rank sum - mean rank sum)^2; 20 000 orders. NaN below 2 seeds or levels.
    """
    rows = complete_rows(table)
    seeds, levels = rows.shape
    if seeds < 2 or levels < 2:
        return math.nan
    ranks = rankdata(rows, axis=1)
    generator = np.random.default_rng(seed)
    sums: NDArray[np.float64] = np.zeros((_DRAWS, levels))
    for row in ranks:
        sums += generator.permuted(np.broadcast_to(row, (_DRAWS, levels)), axis=1)
    centre = seeds * (levels + 1) / 2
    observed = ((ranks.sum(axis=0) - centre) ** 2).sum()
    reached = np.sum(((sums - centre) ** 2).sum(axis=1) >= observed - 1e-9)
    return float((1 + reached) / (1 + _DRAWS))
