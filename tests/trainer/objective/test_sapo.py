"""SAPO: the slope of the sigmoid at ratios worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import gradient, handmade
from testbench import Bench, Toy, on_policy, plain

from trainer.contract.settings import ConfigError
from trainer.objective.surrogates.sapo import SAPO


def slope(surrogate: SAPO, ratio: float, advantage: float) -> float:
    """Derivative of the loss by the ratio: that by the log-prob over the ratio."""
    terms, batch = handmade([[math.log(ratio) - 1]], [[advantage]], old=[[-1.0]])
    return gradient(surrogate(terms, batch).loss, terms)[0][0] / ratio


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope_by_hand"),
    [
        (1.0, 1.0, -1.0),
        (1.0, -2.0, 2.0),
        # 4 s (1 - s) with s = sigmoid(1) = 0.731059: 0.786448.
        (2.0, 1.0, -0.786448),
        # sigmoid(1.05) = 0.740775: 4 * 0.740775 * 0.259225 = 0.768109; the other sign gets the other steepness.
        (2.0, -1.0, 0.768109),
    ],
)
def test_slope_by_the_ratio(ratio: float, advantage: float, slope_by_hand: float) -> None:
    assert slope(SAPO(), ratio, advantage) == pytest.approx(slope_by_hand, abs=1e-6)


def test_a_steep_sigmoid_switches_a_moved_token_off() -> None:
    assert abs(slope(SAPO(tau_positive=50.0), 2.0, 1.0)) < 1e-15


def test_the_gradient_is_that_of_the_value() -> None:
    terms, batch = handmade([[-0.3, -2.0, -1.2]], [[1.5, -0.7, 0.4]], old=[[-0.9, -1.1, -1.0]])

    def value(logprobs: torch.Tensor) -> torch.Tensor:
        return SAPO()(type(terms)(logprobs=logprobs, entropy=terms.entropy), batch).loss

    assert torch.autograd.gradcheck(value, (terms.logprobs,))


def test_on_policy_it_is_grpo() -> None:
    bench, batch = Bench(Toy()), on_policy(Toy())
    ours, grpo = bench.step(plain(surrogate=SAPO()), batch), bench.step(plain(), batch)
    assert grpo.size > 0.01 and ours.distance(grpo) < 1e-12


@pytest.mark.parametrize("setting", [{"tau_positive": 0.0}, {"tau_negative": -1.0}])
def test_a_steepness_of_nothing_is_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"surrogate\.{key}={value}"):
        SAPO(**setting)
