"""Ratio, k1, k2, k3 and covariance by hand, against exact divergences and finite differences; one sign everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainer.metrics.accounting import TokenChange, account
from trainer.metrics.estimators import MAX_LOG_RATIO, bounded, covariance, importance_ratio, k1, k2, k3
from trainer.objective.selection import masked_covariance

DOUBLE = torch.float64


def column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def test_by_hand() -> None:
    # q twice p, and half of it: log-ratios ln 2 and -ln 2.
    log_ratio = column([math.log(2), -math.log(2)])
    assert k1(log_ratio).tolist() == pytest.approx([-0.693147, 0.693147], abs=1e-6)
    assert k2(log_ratio).tolist() == pytest.approx([0.240227] * 2, abs=1e-6)
    assert k3(log_ratio).tolist() == pytest.approx([2 - 1 - math.log(2), 0.5 - 1 + math.log(2)], abs=1e-12)
    ratio = importance_ratio(column([-1.0, -2.0]), column([-2.0, -1.0]))
    assert ratio.tolist() == pytest.approx([math.e, 1 / math.e])


@pytest.mark.parametrize("estimator", [k1, k3])
def test_mean_over_tokens_of_p_is_the_divergence_of_p_from_q(estimator: Callable[[Tensor], Tensor]) -> None:
    p, q = column([0.7, 0.2, 0.1]), column([0.3, 0.3, 0.4])
    exact = float((p * (p / q).log()).sum())
    assert float((p * estimator((q / p).log())).sum()) == pytest.approx(exact, abs=1e-12)
    assert float((q * estimator((p / q).log())).sum()) != pytest.approx(exact, abs=1e-3)


def test_k2_has_the_gradient_of_the_divergence() -> None:
    # d/dz KL(softmax z || q) against the mean under p of the gradient of k2.
    z = column([1.0, 0.2, -0.5]).requires_grad_()
    q = column([0.3, 0.3, 0.4])
    log_p = z.log_softmax(dim=0)
    p = log_p.detach().exp()
    exact = torch.autograd.grad((log_p.exp() * (log_p - q.log())).sum(), z, retain_graph=True)[0]
    estimated = torch.autograd.grad((p * k2(q.log() - log_p)).sum(), z)[0]
    torch.testing.assert_close(estimated, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("function", [k1, k2, k3, lambda d: importance_ratio(d, torch.zeros_like(d))])
def test_finite_differences(function: Callable[[Tensor], Tensor]) -> None:
    d = column([-19.0, -2.0, -1e-3, 0.0, 0.4, 3.0]).requires_grad_()
    assert torch.autograd.gradcheck(function, (d,))


def test_beyond_the_clamp_there_is_a_value_and_no_gradient() -> None:
    d = column([-30.0, 30.0]).requires_grad_()
    assert bounded(d).tolist() == [-MAX_LOG_RATIO, MAX_LOG_RATIO]
    for function in (k3, lambda d: importance_ratio(d, torch.zeros_like(d))):
        value = function(d)
        assert value.isfinite().all()
        assert torch.autograd.grad(value.sum(), d)[0].tolist() == [0.0, 0.0]
    assert k1(d).tolist() == [30.0, -30.0] and k2(d).tolist() == [450.0, 450.0]


def test_k3_of_a_small_ratio_keeps_its_digits_in_float32() -> None:
    # d^2/2 to first order: 5.0002e-9. exp(d) - 1 - d in float32 is 0 or 6e-8, or below 0.
    d = torch.tensor([1e-4, -1e-4, 1e-3])
    exact = torch.expm1(d.double()) - d.double()
    assert (k3(d).double() / exact - 1).abs().max() < 2e-3
    assert (k3(d) > 0).all()


def test_covariance_has_one_sign_and_the_change_of_entropy_the_other() -> None:
    # specification 3.4: l = (-0.1, -0.1, -2, -3), A = (1, 1, -1, -1) give 1.2, 1.2, 0.7, 1.7: likely tokens gain.
    logprobs, advantages = column([-0.1, -0.1, -2.0, -3.0]), column([1.0, 1.0, -1.0, -1.0])
    shares = covariance(logprobs, advantages)
    assert shares.tolist() == pytest.approx([1.2, 1.2, 0.7, 1.7])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert masked_covariance(logprobs[None], advantages[None], mask)[0].tolist() == shares.tolist()
    zero = torch.zeros(4, dtype=DOUBLE)
    sharpened = TokenChange(
        logprobs_before=logprobs,
        logprobs_after=logprobs,
        entropy_before=zero,
        entropy_after=-0.1 * shares,
        advantages=advantages,
    )
    metrics = account(sharpened)
    assert metrics["entropy/scale_covariance"] == pytest.approx(0.1)
    assert metrics["entropy/corr_pearson_covariance"] == pytest.approx(1.0)
