"""KL to the initial model: three estimators by hand, their gradients, their clamps, their means (specification 1.1)."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from testbench import PAD, Bench, Toy, make_rollouts, off_policy, on_policy, plain
from torch import Tensor

from trainer.batch.collate import collate
from trainer.batch.types import TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.regularizers.kl_reference import KLReference


def values(kl: KLReference, logprobs: Tensor, ref_logprobs: list[float]) -> Tensor:
    """The term at tokens [T], scale 1."""
    batch = collate(make_rollouts(groups=1, group_size=1, given=0), pad_id=PAD)
    ready = replace(batch, ref_logprobs=torch.tensor([ref_logprobs], dtype=torch.float64))
    terms = TokenTerms(logprobs=logprobs[None], entropy=torch.zeros_like(logprobs)[None])
    return kl(terms, ready, torch.ones(1, 1))[0]


def both(estimator: Any, logprobs: list[float], ref_logprobs: list[float]) -> tuple[list[float], list[float]]:
    leaf = torch.tensor(logprobs, dtype=torch.float64, requires_grad=True)
    found = values(KLReference(coef=1.0, estimator=estimator), leaf, ref_logprobs)
    return found.tolist(), torch.autograd.grad(found.sum(), leaf)[0].tolist()


# Policy 1/2, reference 1/4 and the other way round: d = -ln 2 and ln 2.
HALF, QUARTER, LN2 = math.log(0.5), math.log(0.25), math.log(2)


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        ("k1", [LN2, -LN2], [1.0, 1.0]),
        ("k2", [LN2**2 / 2, LN2**2 / 2], [LN2, -LN2]),
        # e^d - d - 1 = 1/2 + ln 2 - 1 and 2 - ln 2 - 1; slope 1 - e^d = 1/2 and -1.
        ("k3", [0.193147, 0.306853], [0.5, -1.0]),
    ],
)
def test_by_hand(estimator: str, value: list[float], slope: list[float]) -> None:
    found = both(estimator, [HALF, QUARTER], [QUARTER, HALF])
    assert found[0] == pytest.approx(value, abs=1e-6)
    assert found[1] == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_at_the_reference_value_and_gradient_are_zero(estimator: str) -> None:
    assert both(estimator, [-0.3, -7.0, 0.0], [-0.3, -7.0, 0.0]) == ([0.0] * 3, [0.0] * 3)


def test_clamps() -> None:
    # d = 3: e^3 - 4 = 16.1 is cut to 10 and has no gradient; d = 100 is cut to 20 before it could overflow.
    value, slope = both("k3", [-5.0, -101.0, -1.0], [-2.0, -1.0, -301.0])
    assert value == pytest.approx([10.0, 10.0, 10.0])
    assert slope == [0.0, 0.0, 0.0]
    # k1 and k2 are not cut: d = 100 gives -100 with slope 1, and 100^2 / 2 with slope -100.
    assert both("k1", [-101.0], [-1.0]) == ([-100.0], [1.0])
    assert both("k2", [-101.0], [-1.0]) == ([5000.0], [-100.0])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_mean_under_the_policy_is_the_divergence(estimator: Any) -> None:
    # Sum over tokens of p times the estimate: KL(p || q), for p = (.7, .2, .1), q = (.3, .3, .4).
    p, q = [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]
    exact = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found, _ = both(estimator, [math.log(a) for a in p], [math.log(b) for b in q])
    assert sum(a * value for a, value in zip(p, found, strict=True)) == pytest.approx(exact, abs=1e-12)


def test_k1_pulls_nowhere_on_average_and_says_so() -> None:
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    _, slope = both("k1", p.log().tolist(), [-1.0, -2.0, -3.0])
    logits = p.log().requires_grad_()
    expected = (p * torch.tensor(slope) * logits.log_softmax(dim=0)).sum()
    assert torch.autograd.grad(expected, logits)[0].abs().max() < 1e-12
    run: Any = SimpleNamespace()
    (diagnostic,) = KLReference(estimator="k1").diagnostics(run)
    assert not diagnostic.fatal and "set regularizer.kl_reference.estimator=k3" in diagnostic.message
    assert list(KLReference().diagnostics(run)) == []


def test_first_update_has_no_pull_and_a_later_one_pulls_back() -> None:
    model, batch = Toy(), on_policy(Toy())
    kl = plain(regularizer={"kl_reference": KLReference(coef=1.0)})
    assert Bench(model).step(kl, batch).distance(Bench(model).step(plain(), batch)) < 1e-9
    # Trained on equal rewards nothing but the divergence acts: a step leaves the policy closer to the reference.
    away = replace(off_policy(model), rewards=torch.ones(batch.num_rows))
    outcome = Bench(model).step(kl, away)
    moved = Toy()
    for name, parameter in moved.named_parameters():
        parameter.data -= 0.01 * outcome.gradient[name]
    before, after = (Bench(m).step(kl, away).stats.sums["policy/loss"] for m in (model, moved))
    assert 0 < after < before


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"kl_reference\.coef=-0.1"):
        KLReference(coef=-0.1)
