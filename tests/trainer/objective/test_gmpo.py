"""GMPO: the geometric mean of clipped ratios, and who gets its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import gradient, handmade
from testbench import Bench, Toy, on_policy, plain

from trainer.contract.settings import ConfigError
from trainer.objective.reductions import SequenceMean
from trainer.objective.surrogates.gmpo import GMPO


def test_a_response_by_hand() -> None:
    # Log-ratios 0.2, 1.0 and -0.6 with A = 2: the second counts as 0.4 and has no gradient. Mean 0, ratio 1.
    terms, batch = handmade([[-0.8, 0.0, -1.6]], [[2.0] * 3], old=[[-1.0] * 3])
    found = GMPO()(terms, batch)
    assert found.loss.tolist() == [pytest.approx([-2.0] * 3)]
    assert gradient(found.loss / 3, terms)[0] == pytest.approx([-2 / 3, 0.0, -2 / 3])
    assert found.clipped_high.tolist() == [[False, True, False]] and not found.clipped_low.any()


def test_for_a_negative_advantage_the_lower_threshold_acts() -> None:
    # 0.2, 1.0 and max(-0.6, -0.4): mean 0.8 / 3, ratio exp(0.266667) = 1.305605.
    terms, batch = handmade([[-0.8, 0.0, -1.6]], [[-1.0] * 3], old=[[-1.0] * 3])
    found = GMPO()(terms, batch)
    assert found.loss.tolist() == [pytest.approx([1.305605] * 3, abs=1e-6)]
    assert gradient(found.loss / 3, terms)[0] == pytest.approx([0.435202, 0.435202, 0.0], abs=1e-6)
    assert found.clipped_low.tolist() == [[False, False, True]] and not found.clipped_high.any()


def test_the_gradient_of_a_response_is_that_of_its_value() -> None:
    terms, batch = handmade([[-0.3, -2.0, -1.2]], [[1.5] * 3], old=[[-0.9, -1.1, -1.0]])

    def value(logprobs: torch.Tensor) -> torch.Tensor:
        return GMPO()(type(terms)(logprobs=logprobs, entropy=terms.entropy), batch).loss.mean()

    step, ours = 1e-6, gradient(GMPO()(terms, batch).loss / 3, terms)[0]
    for token, slope in enumerate(ours):
        moved = step * torch.nn.functional.one_hot(torch.tensor([token]), 3)
        sides = [float(value(terms.logprobs.detach() + sign * moved)) for sign in (1, -1)]
        assert slope == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


def test_on_policy_it_is_grpo_with_a_mean_per_response() -> None:
    bench, batch, mean = Bench(Toy()), on_policy(Toy()), SequenceMean()
    ours, grpo = (bench.step(plain(reduction=mean, **s), batch) for s in ({"surrogate": GMPO()}, {}))
    assert grpo.size > 0.01 and ours.distance(grpo) < 1e-12


def test_without_thresholds_it_is_the_geometric_mean() -> None:
    terms, batch = handmade([[0.0, -3.0]], [[1.0, 1.0]], old=[[-2.0, -2.0]])
    assert GMPO(clip_low=9.0, clip_high=9.0)(terms, batch).loss[0, 0].item() == pytest.approx(-math.exp(0.5))


@pytest.mark.parametrize("setting", [{"clip_low": -0.1}, {"clip_high": -0.2}])
def test_thresholds_out_of_range_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"surrogate\.{key}={value}"):
        GMPO(**setting)
