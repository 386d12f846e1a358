"""Power of the paired t test against the noncentral t of scipy, published sample sizes, and simulated seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import nct
from scipy.stats import t as student

from dashboards.statistics.power import (
    POWER,
    detectable_effect,
    detection_power,
    equivalence_power,
    seeds_to_detect,
    seeds_to_equivalence,
)

SIMULATED = 40_000


def simulated(effect: float, spread: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and half-widths of the 95 % t interval in many studies of ``count`` paired differences."""
    draws = np.random.default_rng(5).normal(effect, spread, (SIMULATED, count))
    half = student.ppf(0.975, count - 1) * draws.std(axis=1, ddof=1) / np.sqrt(count)
    return draws.mean(axis=1), half


@pytest.mark.parametrize(("effect", "count"), [(0.0, 2), (1.0, 3), (0.5, 34), (2.0, 5), (-1.0, 8)])
def test_power_is_that_of_the_noncentral_t(effect: float, count: int) -> None:
    bar, ncp = student.ppf(0.975, count - 1), effect * np.sqrt(count)
    expected = nct.sf(bar, count - 1, ncp) + nct.cdf(-bar, count - 1, ncp)
    assert detection_power(3 * effect, 3.0, count) == pytest.approx(expected, abs=1e-6)


def test_sample_sizes_are_the_published_ones() -> None:
    # Cohen 1988 and G*Power for the paired test, two-sided 5 %, 80 %: d_z 0.2, 0.5 and 0.8 take 199, 34 and 15 pairs.
    assert [seeds_to_detect(d * 7, 7.0) for d in (0.2, 0.5, -0.8)] == [199, 34, 15]
    assert seeds_to_detect(0.0, 1.0) is None and seeds_to_detect(0.01, 1.0) is None


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_the_detectable_effect_is_found_with_the_stated_chance(count: int) -> None:
    effect = detectable_effect(0.02, count)
    mean, half = simulated(effect, 0.02, count)
    assert float((np.abs(mean) > half).mean()) == pytest.approx(POWER, abs=4 * (0.16 / SIMULATED) ** 0.5)


@pytest.mark.parametrize(("effect", "margin", "count"), [(0.0, 1.0, 8), (0.4, 1.0, 20), (-0.4, 1.0, 20), (0.0, 2.5, 3)])
def test_equivalence_power_is_that_of_simulated_seeds(effect: float, margin: float, count: int) -> None:
    mean, half = simulated(effect, 1.0, count)
    inside = float((np.abs(mean) + half <= margin).mean())
    assert 0.05 < inside < 0.95, "a case that can fail"
    assert equivalence_power(effect, 1.0, margin, count) == pytest.approx(inside, abs=0.01)


def test_the_fewest_seeds_are_the_first_with_the_power() -> None:
    for fewest, power in (
        (seeds_to_detect(0.7, 1.0), lambda count: detection_power(0.7, 1.0, count)),
        (seeds_to_equivalence(0.2, 1.0, 0.9), lambda count: equivalence_power(0.2, 1.0, 0.9, count)),
    ):
        assert fewest is not None and power(fewest) >= POWER > power(fewest - 1)
    assert seeds_to_equivalence(1.2, 1.0, 1.0) is None, "an effect outside the margin is never placed within it"
