"""DCPO: bounds on the ratio by the probability a token was sampled at."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import gradient, handmade

from trainer.objective.surrogates.dcpo import DCPO


@pytest.mark.parametrize(
    ("q", "low", "high"),
    [
        # 1/2 + 1/2 sqrt(1 - 0.64) = 0.8; 1/2 + 1/2 sqrt(1.8) = 1.170820.
        (1.0, 0.8, 1.170820),
        # 1 - 1.28 < 0; 1/2 + 1/2 sqrt(2.6) = 1.306226.
        (0.5, 0.5, 1.306226),
        (0.1, 0.5, 2.0),
        (0.01, 0.5, 5.0),
        (1e-6, 0.5, 10.0),
        (0.0, 0.5, 10.0),
    ],
)
def test_bounds(q: float, low: float, high: float) -> None:
    logprob = torch.tensor([[math.log(q) if q else -1e4]], dtype=torch.float64)
    assert [float(bound) for bound in DCPO().bounds(logprob)] == pytest.approx([low, high], abs=1e-6)


@pytest.mark.parametrize("q", [0.9, 0.7, 0.3])
def test_within_its_bounds_a_token_moves_by_the_width_at_most(q: float) -> None:
    # The bounds are the roots of ratio (ratio - 1) q = clip_high and ratio (1 - ratio) q = clip_low.
    low, high = (float(bound) for bound in DCPO().bounds(torch.tensor([[math.log(q)]], dtype=torch.float64)))
    assert high * (high - 1) * q == pytest.approx(0.2)
    if q > 0.64:
        assert low * (1 - low) * q == pytest.approx(0.16)


def test_a_rare_token_keeps_its_gradient_where_a_likely_one_loses_it() -> None:
    old = [[math.log(0.1), math.log(0.5), math.log(0.9), math.log(0.9)]]
    ratios = [1.9, 1.4, 0.8, 0.7]
    logprobs = [[value + math.log(ratio) for value, ratio in zip(old[0], ratios, strict=True)]]
    terms, batch = handmade(logprobs, [[1.0, 1.0, -1.0, -1.0]], old=old)
    found = DCPO()(terms, batch)
    # At 0.9 the lower bound is 1/2 + 1/2 sqrt(1 - 0.711111) = 0.768741.
    assert gradient(found.loss, terms)[0] == pytest.approx([-1.9, 0.0, 0.8, 0.0])
    assert found.clipped_high[0].tolist() == [False, True, False, False]
    assert found.clipped_low[0].tolist() == [False, False, False, True]
