"""The reward-entropy law on synthetic runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.metrics.law import early_error, fit_law


def test_recovers_the_oracle() -> None:
    entropy = np.linspace(0.1, 1.2, 40)
    fit = fit_law(entropy, -0.2 * np.exp(entropy) + 0.9)
    assert (fit.a, fit.b, fit.r2, fit.ceiling) == pytest.approx((0.2, 0.9, 1.0, 0.7), abs=1e-13)


def test_three_points_by_hand() -> None:
    # x = e^H = 1, 2, 3 and R = 1, 0, 0: slope -1/2, mean 1/3 at x = 2, so b = 1/3 + 1 = 4/3.
    # Residuals 1/6, -1/3, 1/6: sum of squares 1/6; spread of R: 2/3. R^2 = 1 - 1/4.
    fit = fit_law(np.log([1.0, 2.0, 3.0]), [1.0, 0.0, 0.0])
    assert (fit.a, fit.b, fit.r2) == pytest.approx((0.5, 4 / 3, 0.75))
    assert fit.predict(0.0) == pytest.approx(4 / 3 - 1 / 2)


def test_early_points_predict_the_end() -> None:
    entropy = np.linspace(1.2, 0.1, 40)
    law = -0.2 * np.exp(entropy) + 0.9
    assert early_error(entropy, law) == pytest.approx(0.0, abs=1e-12)
    # ceil(0.15 * 40) = 6 points obey the law; only the last is moved up, so the prediction falls short by that.
    moved = law.copy()
    moved[-1] += 0.05
    assert early_error(entropy, moved) == pytest.approx(-0.05)
    moved = law.copy()
    moved[6:] = 0.0
    assert early_error(entropy, moved) == pytest.approx(law[-1]), "the seventh point is not part of the fit"


def test_constant_reward_has_no_r2() -> None:
    assert math.isnan(fit_law([0.1, 0.2], [1.0, 1.0]).r2)


@pytest.mark.parametrize("points", [([], []), ([0.3], [0.5]), ([0.3, 0.3], [0.5, 0.6])])
def test_a_line_needs_two_abscissae(points: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="two different entropies"):
        fit_law(*points)


def test_bad_shapes_and_fractions() -> None:
    with pytest.raises(ValueError, match="pair them"):
        fit_law([0.1, 0.2], [1.0])
    with pytest.raises(ValueError, match="fraction"):
        early_error([0.1, 0.2], [1.0, 0.9], fraction=0.0)
