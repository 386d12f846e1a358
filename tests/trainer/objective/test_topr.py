"""TOPR: no ratio above, a tapered one below."""

from __future__ import annotations

import math

import pytest
from handmade import gradient, handmade
from testbench import Bench, Toy, on_policy, plain

from trainer.objective.surrogates.topr import TOPR


def slopes(surrogate: TOPR, ratios: list[float], advantages: list[float]) -> list[float]:
    terms, batch = handmade([[math.log(r) - 1 for r in ratios]], [advantages], old=[[-1.0] * len(ratios)])
    return gradient(surrogate(terms, batch).loss, terms)[0]


def test_positive_tokens_carry_no_ratio_and_negative_ones_one_of_at_most_1() -> None:
    assert slopes(TOPR(), [3.0, 0.2, 3.0, 0.2], [1.5, 1.5, -2.0, -2.0]) == pytest.approx([-1.5, -1.5, 2.0, 0.4])


def test_each_sign_has_a_weight() -> None:
    assert slopes(TOPR(positive=0.5, negative=3.0), [1.0, 0.5], [1.0, -1.0]) == pytest.approx([-0.5, 1.5])


def test_on_policy_it_is_grpo() -> None:
    bench, batch = Bench(Toy()), on_policy(Toy())
    ours, grpo = bench.step(plain(surrogate=TOPR()), batch), bench.step(plain(), batch)
    assert grpo.size > 0.01 and ours.distance(grpo) < 1e-12
