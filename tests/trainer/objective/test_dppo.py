"""DPPO: who has left the ball, and the gradient of who has not."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import gradient, handmade
from testbench import Bench, Toy, on_policy, plain

from trainer.objective.surrogates.dppo import DPPO, binary_kl

KL = DPPO(divergence="kl", delta=0.05)


def slopes(surrogate: DPPO, now: list[float], old: list[float], advantages: list[float]) -> list[float]:
    """Gradient by the log-prob of tokens with these probabilities."""
    logs = [[[math.log(p) for p in row]] for row in (now, old)]
    terms, batch = handmade(logs[0], [advantages], old=logs[1])
    return gradient(surrogate(terms, batch).loss, terms)[0]


def test_total_variation_masks_what_moves_outward() -> None:
    # 0.5 -> 0.7 is 0.2 > 0.15; 0.5 -> 0.6 is within; 0.01 -> 0.1, a ratio of 10, is within.
    assert slopes(DPPO(), [0.7, 0.6, 0.1], [0.5, 0.5, 0.01], [1.0] * 3) == pytest.approx([0.0, -1.2, -10.0])
    # Inward it keeps its gradient: 0.5 -> 0.7 with a negative advantage, 0.5 -> 0.3 with a positive one.
    assert slopes(DPPO(), [0.7, 0.3, 0.3], [0.5] * 3, [-1.0, 1.0, -1.0]) == pytest.approx([1.4, -0.6, 0.0])


def test_binary_kl_by_hand() -> None:
    # 0.5 ln(0.5 / 0.7) + 0.5 ln(0.5 / 0.3) = 0.5 (-0.336472 + 0.510826) = 0.087177.
    old, now = torch.tensor([[0.5, 0.9]]).double().log(), torch.tensor([[0.7, 0.9]]).double().log()
    assert binary_kl(old, now).tolist() == [pytest.approx([0.087177, 0.0], abs=1e-6)]
    assert 1 < float(binary_kl(old, torch.zeros(1, 2, dtype=torch.float64))[0, 0]) < math.inf
    assert binary_kl(torch.zeros(1, 1), torch.zeros(1, 1)).tolist() == [[0.0]]


def test_kl_masks_what_moves_outward() -> None:
    # 0.5 -> 0.6: 0.5 ln(0.5/0.6) + 0.5 ln(0.5/0.4) = 0.020411 <= 0.05.
    assert slopes(KL, [0.7, 0.6, 0.7, 0.3], [0.5] * 4, [1.0, 1.0, -1.0, -1.0]) == pytest.approx([0.0, -1.2, 1.4, 0.0])


def test_a_ratio_counts_as_its_bound_at_most() -> None:
    assert slopes(DPPO(), [0.1], [0.001], [1.0]) == pytest.approx([-20.0])
    assert slopes(DPPO(max_ratio=3.0), [0.1], [0.001], [-2.0]) == pytest.approx([6.0])


def test_clipping_is_counted_by_side() -> None:
    terms, batch = handmade([[math.log(0.9), math.log(0.1)]], [[1.0, -1.0]], old=[[math.log(0.5)] * 2])
    found = DPPO()(terms, batch)
    assert found.clipped_high.tolist() == [[True, False]] and found.clipped_low.tolist() == [[False, True]]


@pytest.mark.parametrize("surrogate", [DPPO(), KL], ids=["tv", "kl"])
def test_on_policy_it_is_grpo(surrogate: DPPO) -> None:
    bench, batch = Bench(Toy()), on_policy(Toy())
    ours, grpo = bench.step(plain(surrogate=surrogate), batch), bench.step(plain(), batch)
    assert grpo.size > 0.01 and ours.distance(grpo) < 1e-12
