"""The reward-entropy law against numbers worked by hand, and the coverage of its intervals by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dashboards.statistics.law import Law, early_steps, fit_law, prediction_error

EXACT = 1e-9


def fitted(entropy: list[float] | NDArray[np.float64], reward: list[float] | NDArray[np.float64]) -> Law:
    law = fit_law(entropy, reward)
    assert law is not None
    return law


def test_exact_points_give_exact_constants() -> None:
    # e^H = 1, 2, 3 and R = 3, 2, 1: a = 1, b = 4, ceiling 3, and nothing left to be unsure of.
    law = fitted(np.log([1.0, 2.0, 3.0]), [3.0, 2.0, 1.0])
    for interval, value in ((law.a, 1.0), (law.b, 4.0), (law.ceiling, 3.0), (law.r_squared, 1.0)):
        assert interval.mean == pytest.approx(value, abs=EXACT)
        assert (interval.low, interval.high) == pytest.approx((value, value), abs=1e-6)


def test_three_points_by_hand() -> None:
    # x = e^H = 1, 2, 3 and R = 2, 0, 1: slope -1/2, offset 2; residuals 1/2, -1, 1/2: SSE 1.5, SST 2, R^2 = 1/4.
    law = fitted(np.log([1.0, 2.0, 3.0]), [2.0, 0.0, 1.0])
    assert (law.a.mean, law.b.mean, law.ceiling.mean) == pytest.approx((0.5, 2.0, 1.5), abs=EXACT)
    assert law.r_squared.mean == pytest.approx(0.25, abs=EXACT)
    # Lag-1 correlation of the residuals -1 / 1.5 = -2/3, corrected -2/3 + (2 - 8/3) / 3 < 0: all three steps count.
    # s^2 = 1.5 / (3 - 2), Sxx = 2: standard error of the slope 0.866; t_{0.975,1} = 12.706: half-width 11.004.
    assert law.a.high - law.a.mean == pytest.approx(11.004, abs=1e-3)
    # b = R(x = 0): variance s^2 (1/3 + 2^2 / 2) = 3.5; ceiling = R(x = 1): s^2 (1/3 + 1/2) = 1.25.
    assert law.b.high - law.b.mean == pytest.approx(12.7062 * math.sqrt(3.5), abs=1e-3)
    assert law.ceiling.high - law.ceiling.mean == pytest.approx(12.7062 * math.sqrt(1.25), abs=1e-3)
    assert math.isnan(law.r_squared.low), "Fisher's z needs more than three steps"


def test_r_squared_has_the_interval_of_fishers_z() -> None:
    # Residuals +1 and -1 in turn are anticorrelated, so all 8 steps count. x = 1..4 twice with R = x + residual.
    x = np.repeat([1.0, 2.0, 3.0, 4.0], 2)
    law = fitted(np.log(x), x + np.tile([1.0, -1.0], 4))
    # Sxx = Sxy = 10, Syy = 18: r^2 = 10/18; z = atanh(0.745356) = 0.96242 -+ 1.95996 / sqrt 5.
    assert law.r_squared.mean == pytest.approx(10 / 18, abs=EXACT)
    assert law.r_squared.low == pytest.approx(math.tanh(0.962424 - 0.876523) ** 2, abs=1e-4)
    assert law.r_squared.high == pytest.approx(math.tanh(0.962424 + 0.876523) ** 2, abs=1e-4)


def test_r_squared_of_noise_ends_at_zero_and_stays_below_one() -> None:
    generator = np.random.default_rng(0)
    law = fitted(generator.normal(size=30), generator.normal(size=30))
    assert law.r_squared.low == 0.0 and law.r_squared.mean < law.r_squared.high < 1.0


@pytest.mark.parametrize("points", [([], []), ([0.3, 0.2], [0.5, 0.6]), ([0.2, 0.2, 0.2], [0.1, 0.2, 0.3])])
def test_no_law_from_too_little(points: tuple[list[float], list[float]]) -> None:
    assert fit_law(*points) is None


def test_constant_reward_has_no_r_squared() -> None:
    assert math.isnan(fitted([0.1, 0.2, 0.3], [1.0, 1.0, 1.0]).r_squared.mean)


def test_steps_without_both_values_are_left_out() -> None:
    law = fitted([0.0, math.log(2), 9.0, math.log(3)], [3.0, 2.0, math.nan, 1.0])
    assert law.a.mean == pytest.approx(1.0, abs=EXACT) and law.a.count == 3


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_intervals_cover_although_neighbouring_steps_err_alike(correlation: float) -> None:
    # A run of 40 steps whose reward errs by an AR(1) process. Counting every step, the intervals cover 67 % at 0.6.
    generator, covered = np.random.default_rng(3), []
    for _ in range(600):
        entropy = 0.137 + 0.153 * np.exp(-np.arange(40) / 10) + generator.normal(0, 0.002, 40)
        noise = generator.normal(size=40) * math.sqrt(1 - correlation**2)
        noise[0] = generator.normal()
        for step in range(1, 40):
            noise[step] += correlation * noise[step - 1]
        law = fitted(entropy, 1.93 - 1.3 * np.exp(entropy) + 0.018 * noise)
        truths = ((law.a, 1.3), (law.b, 1.93), (law.ceiling, 0.63))
        covered.append([interval.low <= truth <= interval.high for interval, truth in truths])
    # Binomial standard error sqrt(0.95 * 0.05 / 600) = 0.009; three of them, and what the correction leaves.
    assert np.mean(covered, axis=0) == pytest.approx(0.95, abs=0.035)


def test_the_rest_is_predicted_exactly_by_a_run_that_obeys_the_law() -> None:
    entropy = np.linspace(1.2, 0.1, 40)
    assert prediction_error(entropy, 0.9 - 0.2 * np.exp(entropy), early_steps(40)) == pytest.approx(0.0, abs=EXACT)


def test_the_error_is_the_rmse_over_the_rest() -> None:
    # ceil(0.15 * 40) = 6 steps obey the law; of the 34 after them one is 0.34 too high: sqrt(0.34^2 / 34).
    entropy = np.linspace(1.2, 0.1, 40)
    reward = 0.9 - 0.2 * np.exp(entropy)
    reward[-1] += 0.34
    assert early_steps(40) == 6
    assert prediction_error(entropy, reward, 6) == pytest.approx(0.34 / math.sqrt(34), abs=EXACT)
    assert prediction_error(entropy, reward, 36) == pytest.approx(0.34 / 2, abs=EXACT)


def test_a_run_that_is_all_beginning_predicts_nothing() -> None:
    assert math.isnan(prediction_error([0.3, 0.2, 0.1], [0.1, 0.2, 0.3], early_steps(3)))
    assert math.isnan(prediction_error(np.linspace(1, 0, 36), np.linspace(0, 1, 36), 36))
