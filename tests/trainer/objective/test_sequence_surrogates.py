"""VESPO, LUSPO and DRO: numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import gradient, handmade
from testbench import Bench, Toy, off_policy, on_policy, plain

from trainer.objective.base import Surrogate
from trainer.objective.reductions import SequenceMean, SequenceSum
from trainer.objective.surrogates.dro import DRO
from trainer.objective.surrogates.gspo import GSPO
from trainer.objective.surrogates.luspo import LUSPO
from trainer.objective.surrogates.vespo import VESPO


def slopes(surrogate: Surrogate, gaps: list[float], advantage: float) -> list[float]:
    """Gradient by the log-prob of one response's tokens with these log-ratios."""
    terms, batch = handmade([[gap - 9 for gap in gaps]], [[advantage] * len(gaps)], old=[[-9.0] * len(gaps)])
    return gradient(surrogate(terms, batch).loss, terms)[0]


@pytest.mark.parametrize(("advantage", "phi"), [(1.0, math.exp(3 + 2 * math.log(2) - 6)), (-1.0, 8 * math.exp(-2))])
def test_vespo_at_a_weight_of_two(advantage: float, phi: float) -> None:
    # 4 e^-3 = 0.199148 and 8 e^-2 = 1.082682, for every token of the response, however the weight is shared out.
    assert phi == pytest.approx({1.0: 0.199148, -1.0: 1.082682}[advantage], abs=1e-6)
    found = slopes(VESPO(), [math.log(2) + 1.5, -1.5], advantage)
    assert found == pytest.approx([-advantage * phi] * 2)


def test_vespo_far_off_policy_gives_nothing_and_stays_finite() -> None:
    for gap in (8.0, -30.0, -300.0, 300.0):
        assert slopes(VESPO(), [gap, gap, gap], 1.0) == pytest.approx([0.0] * 3, abs=1e-14)
    # log w is kept above ln 1e-8: phi = exp(3 (1 - 1e-8)) 1e-16.
    assert slopes(VESPO(), [-9.0, -20.0], 1.0) == pytest.approx([-math.exp(3) * 1e-16] * 2, rel=1e-6)


@pytest.mark.parametrize("surrogate", [VESPO(), DRO(), DRO(beta=0.1)], ids=["vespo", "dro", "dro 0.1"])
def test_on_policy_it_is_grpo(surrogate: Surrogate) -> None:
    bench, batch = Bench(Toy()), on_policy(Toy())
    ours, grpo = bench.step(plain(surrogate=surrogate), batch), bench.step(plain(), batch)
    assert grpo.size > 0.01 and ours.distance(grpo) < 1e-12


def test_luspo_is_gspo_times_the_length() -> None:
    terms, batch = handmade([[-1.0, -1.5, -0.5]], [[2.0] * 3], old=[[-1.3] * 3])
    loose = {"clip_low": 0.5, "clip_high": 0.5}
    gspo, luspo = (kind(**loose)(terms.detach(), batch).loss for kind in (GSPO, LUSPO))
    # s = exp((0.3 - 0.2 + 0.8) / 3) = 1.349859; the loss of the response is -2 * 3 * s.
    assert float((SequenceSum().scale(batch) * luspo).sum()) == pytest.approx(-6 * 1.349859, abs=1e-5)
    assert float((SequenceMean().scale(batch) * gspo).sum()) == pytest.approx(-2 * 1.349859, abs=1e-5)
    assert LUSPO.forced_reduction == "SequenceSum"


def test_dro_by_hand() -> None:
    # -(A - beta gap): A = 1, gaps 0.2, 1 and 1.5, beta 1: pulled up, at rest, pulled back.
    assert slopes(DRO(), [0.2, 1.0, 1.5], 1.0) == pytest.approx([-0.8, 0.0, 0.5])
    assert slopes(DRO(beta=0.5), [-1.0], -2.0) == pytest.approx([1.5])
    assert slopes(DRO(), [0.5], 0.0) == pytest.approx([0.5])  # pulled back without an advantage


def test_dro_s_gradient_is_that_of_its_value() -> None:
    terms, batch = handmade([[-0.3, -2.0, -1.2]], [[1.5, -0.7, 0.4]], old=[[-0.9, -1.1, -1.0]])

    def value(logprobs: torch.Tensor) -> torch.Tensor:
        return DRO(beta=0.7)(type(terms)(logprobs=logprobs, entropy=terms.entropy), batch).loss

    assert torch.autograd.gradcheck(value, (terms.logprobs,))


def test_dro_moves_rows_without_an_advantage() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    flat = batch.rows(torch.arange(batch.num_rows))
    flat.rewards.fill_(1.0)
    assert bench.step(plain(surrogate=DRO()), flat).size > 1e-3
