"""Entropy accounting: estimators against a tabular softmax in float64, fits and quadrants by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.metrics.accounting import (
    TokenChange,
    account,
    compare,
    exact,
    quadrants,
    steer_published,
    steer_released,
    token_change,
)
from trainer.metrics.calibration import average_ranks
from trainer.metrics.estimators import covariance
from trainer.metrics.table import check


def entropy_of(logits: Tensor) -> Tensor:
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def tabular(
    logits: Tensor, sampled: Tensor, advantages: Tensor, eta: float, ratio: Tensor | None = None
) -> TokenChange:
    """What a step z += eta r A (onehot_k - p) on each of M separate softmaxes [M, V] does."""
    logprobs = logits.log_softmax(-1)
    p, index = logprobs.exp(), sampled[:, None]
    entropy = entropy_of(logits)
    weight = advantages if ratio is None else advantages * ratio
    onehot = torch.zeros_like(p).scatter_(1, index, 1.0)
    moved = logits + eta * weight[:, None] * (onehot - p)
    return TokenChange(
        logprobs_before=logprobs.gather(1, index)[:, 0],
        logprobs_after=moved.log_softmax(-1).gather(1, index)[:, 0],
        entropy_before=entropy,
        entropy_after=entropy_of(moved),
        advantages=advantages,
        sum_p2_logp_h=(p**2 * (logprobs + entropy[:, None])).sum(-1),
        ratio=ratio,
    )


def draws(rows: int, vocabulary: int, spread: float, eta: float) -> TokenChange:
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(rows, vocabulary, dtype=torch.float64, generator=generator)
    sampled = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    advantages = torch.randn(rows, dtype=torch.float64, generator=generator)
    return tabular(logits, sampled, advantages, eta)


def test_exact_estimate_is_the_derivative_of_entropy() -> None:
    # Central difference over eta: the error is O(eta^2) = 1e-10.
    ratio = torch.linspace(0.5, 1.5, 200, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(200, 7, dtype=torch.float64, generator=generator)
    sampled = torch.randint(7, (200,), generator=generator)
    advantages = torch.randn(200, dtype=torch.float64, generator=generator)
    forth, back = (tabular(logits, sampled, advantages, eta, ratio) for eta in (1e-5, -1e-5))
    difference = (forth.entropy_after - back.entropy_after) / 2e-5
    torch.testing.assert_close(exact(forth), difference, atol=1e-8, rtol=1e-7)


def test_binary_vocabulary() -> None:
    # specification 5: -2 eta r A p (1 - p)(log p + H), which is 2 p times the released form.
    logits = torch.stack([torch.linspace(-4, 4, 33, dtype=torch.float64), torch.zeros(33, dtype=torch.float64)], 1)
    change = tabular(logits, torch.zeros(33, dtype=torch.long), torch.full((33,), 1.5, dtype=torch.float64), 1e-3)
    p = logits.softmax(-1)[:, 0]
    expected = -2 * 1.5 * p * (1 - p) * (p.log() + change.entropy_before)
    torch.testing.assert_close(exact(change), expected, atol=1e-14, rtol=1e-10)
    torch.testing.assert_close(2 * p * steer_released(change), expected, atol=1e-14, rtol=1e-10)


def test_sign_of_the_released_form_mostly_agrees() -> None:
    # 87 % was found on random 50-way softmaxes; on-policy draws from normal logits of spread 0.5 to 3 give 80 to 89 %.
    change = draws(4000, 50, 2.0, 1e-4)
    agreement = (steer_released(change).sign() == exact(change).sign()).double().mean()
    assert 0.78 < float(agreement) < 0.92


def test_typical_token_changes_nothing_in_the_released_form() -> None:
    # Uniform over 4: log p = -H for every token, so Omega = 0; the exact term is 0 too, entropy is at its top.
    change = tabular(torch.zeros(3, 4, dtype=torch.float64), torch.arange(3), torch.ones(3, dtype=torch.float64), 1e-3)
    torch.testing.assert_close(steer_released(change), torch.zeros(3, dtype=torch.float64), atol=1e-15, rtol=0)
    torch.testing.assert_close(exact(change), torch.zeros(3, dtype=torch.float64), atol=1e-15, rtol=0)


def flat(**columns: list[float]) -> TokenChange:
    """A change from plain lists; what is not given is 0."""
    size = len(next(iter(columns.values())))
    names = ("logprobs_before", "logprobs_after", "entropy_before", "entropy_after", "advantages")
    values = {name: torch.zeros(size, dtype=torch.float64) for name in names}
    return TokenChange(**values | {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()})


def test_covariance_oracle() -> None:
    change = flat(logprobs_before=[-0.1, -0.1, -2, -3], advantages=[1, 1, -1, -1])
    expected = torch.tensor([1.2, 1.2, 0.7, 1.7], dtype=torch.float64)
    torch.testing.assert_close(covariance(change.logprobs_before, change.advantages), expected)
    # The prediction has the other sign: entropies that fell by exactly that are met with scale 1.
    fell = replace(change, entropy_after=-expected)
    assert account(fell)["entropy/scale_covariance"] == pytest.approx(1.0)
    assert account(fell)["entropy/delta_predicted_covariance"] == pytest.approx(-1.2)


def test_published_form_drops_clipped_tokens() -> None:
    # p = 1/2, H = 1: released = -r A (1/2)(1 - ln 2). Clipped: A > 0 above 1.2 and A < 0 below 0.8.
    ratio = [1.3, 1.3, 0.7, 0.7, 1.0]
    kept = [0.0, 1.3, 0.7, 0.0, 1.0]
    advantages = [1.0, -1.0, 1.0, -1.0, 1.0]
    change = flat(logprobs_before=[math.log(0.5)] * 5, entropy_before=[1.0] * 5, advantages=advantages)
    used = {"ratio": torch.tensor(ratio, dtype=torch.float64), "kept_ratio": torch.tensor(kept, dtype=torch.float64)}
    change = replace(change, **used)
    unit = 0.5 * (1 - math.log(2))
    released = [-r * a * unit for r, a in zip(ratio, advantages, strict=True)]
    assert steer_released(change).tolist() == pytest.approx(released)
    assert steer_published(change).tolist() == pytest.approx([0.0, released[1], released[2], 0.0, released[4]])
    metrics = account(replace(change, entropy_after=torch.linspace(0.9, 1.2, 5, dtype=torch.float64)))
    assert metrics["entropy/scale_steer_published"] != metrics["entropy/scale_steer_released"]
    first = replace(change, ratio=None, kept_ratio=None)
    assert steer_published(first).tolist() == steer_released(first).tolist()
    squared = steer_released(first, one_minus_pi_power=2.0)
    assert squared.tolist() == pytest.approx([0.5 * value for value in steer_released(first).tolist()])


def test_quadrants_by_hand_and_their_sum() -> None:
    # H = 1: log p = -0.5 is likely, -2 unlikely, -1 exactly typical (counted likely).
    change = flat(
        logprobs_before=[-0.5, -2, -0.5, -2, -1, -1],
        entropy_before=[1.0] * 6,
        entropy_after=[0.9, 1.2, 1.3, 0.6, 1.5, 0.4],
        advantages=[1, 1, -1, -1, 0, 2],
    )
    metrics = account(change)
    expected = {"positive_likely": -0.7, "positive_unlikely": 0.2, "negative_likely": 0.3, "negative_unlikely": -0.4}
    expected["neutral"] = 0.5
    assert {name: metrics[f"entropy/delta_{name}"] * 6 for name in expected} == pytest.approx(expected)
    assert metrics["entropy/delta_measured"] == pytest.approx(-0.1 / 6)
    assert metrics["entropy/delta_measured"] == math.fsum(metrics[f"entropy/delta_{name}"] for name in expected)
    check(metrics)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-3, 0)] * 2, *[st.floats(0, 3)] * 2, st.sampled_from([-1.0, 0.0, 2.0])), min_size=1)
)
def test_quadrants_cover_every_token_once(rows: list[tuple[float, ...]]) -> None:
    names = ("logprobs_before", "logprobs_after", "entropy_before", "entropy_after", "advantages")
    change = flat(**{name: [row[i] for row in rows] for i, name in enumerate(names)})
    assert torch.stack(list(quadrants(change).values())).sum(0).tolist() == [1] * len(rows)
    assert account(change)["entropy/delta_measured"] == pytest.approx(float(change.measured.mean()), abs=1e-12)


def test_fit_by_hand() -> None:
    # scale = (1*2 + 2*2 + 3*5) / (1 + 4 + 9) = 21/14 = 1.5; residuals 0.5, -1, 0.5; predicted mean 3.
    # Pearson: deviations (-1, 0, 1) and (-1, -1, 2): 3 / sqrt(2 * 6).
    # Spearman: ranks (1, 2, 3) and (1.5, 1.5, 3): 1.5 / sqrt(2 * 1.5).
    fit = compare(torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 2.0, 5.0]).double())
    assert (fit.scale, fit.predicted) == pytest.approx((1.5, 3.0))
    assert fit.pearson == pytest.approx(3 / math.sqrt(12))
    assert fit.spearman == pytest.approx(1.5 / math.sqrt(3))
    assert fit.rmse == pytest.approx(math.sqrt(1.5 / 3))


def test_ranks_and_correlations_agree_with_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 9, (300,), generator=generator).double()
    second = first + torch.randint(0, 9, (300,), generator=generator)
    assert average_ranks(first.numpy()).tolist() == stats.rankdata(first.numpy()).tolist()
    fit = compare(first, second)
    assert fit.spearman == pytest.approx(float(stats.spearmanr(first, second).statistic))
    assert fit.pearson == pytest.approx(float(stats.pearsonr(first, second).statistic))


def test_tabular_step_is_explained_by_the_exact_estimate() -> None:
    eta = 1e-3
    metrics = account(draws(2000, 20, 1.0, eta))
    assert metrics["entropy/scale_exact"] == pytest.approx(eta, rel=1e-3)
    assert metrics["entropy/corr_pearson_exact"] > 0.99999
    assert metrics["entropy/delta_predicted_exact"] == pytest.approx(metrics["entropy/delta_measured"], rel=0.02)
    for other in ("covariance", "steer_released", "steer_published"):
        assert 0.2 < metrics[f"entropy/corr_pearson_{other}"] < metrics["entropy/corr_pearson_exact"]
        assert metrics[f"entropy/rmse_{other}"] > metrics["entropy/rmse_exact"]


def test_step_without_change_or_advantage_reports_no_correlation() -> None:
    metrics = account(flat(logprobs_before=[-1.0, -2.0], logprobs_after=[-1.0, -2.0], advantages=[0.0, 0.0]))
    assert metrics["entropy/delta_measured"] == 0.0
    assert metrics["entropy/kl_step"] == 0.0
    assert not [key for key in metrics if "corr" in key or "scale" in key]
    assert account(flat(advantages=[])) == {}


def test_kl_of_the_step() -> None:
    # k3 = r - 1 - log r with r = 2: 1 - ln 2.
    metrics = account(flat(logprobs_before=[-1.0], logprobs_after=[math.log(2) - 1.0], advantages=[1.0]))
    assert metrics["entropy/kl_step"] == pytest.approx(1 - math.log(2))


def test_exact_needs_its_statistic() -> None:
    change = flat(advantages=[1.0])
    with pytest.raises(ValueError, match="sum_p2_logp_h"):
        exact(change)
    assert not [key for key in account(change) if key.endswith("exact")]


def test_token_change_flattens_by_the_mask() -> None:
    grid = torch.arange(6.0).reshape(2, 3)
    ids = torch.zeros(2, 3, dtype=torch.long)
    batch = TokenBatch(
        inputs=ids, targets=ids, positions=ids, lengths=torch.tensor([3, 2]), prompt_lengths=torch.tensor([1, 1]),
        sampler_logprobs=grid,
        mask=torch.tensor([[False, True, True], [False, True, False]]),
        rewards=torch.zeros(2), raw_rewards=torch.zeros(2),
        group=torch.zeros(2, dtype=torch.long), truncated=torch.zeros(2, dtype=torch.bool), old_logprobs=-grid,
        old_entropy=grid, advantages=grid + 10, extras={"sum_p2_logp_h": grid + 20},
    )  # fmt: skip
    after = TokenTerms(logprobs=-grid - 1, entropy=(grid + 0.5).requires_grad_())
    change = token_change(batch, after)
    assert change.measured.tolist() == [0.5, 0.5, 0.5]
    assert not change.measured.requires_grad
    assert change.logprobs_after.tolist() == [-2, -3, -5]
    assert change.advantages.tolist() == [11, 12, 14]
    assert change.sum_p2_logp_h is not None and change.sum_p2_logp_h.tolist() == [21, 22, 24]
    assert change.ratio is None and change.kept_ratio is None
    used = replace(batch, extras=batch.extras | {"update_ratio": grid + 1, "update_kept_ratio": grid})
    change = token_change(used, after)
    assert change.ratio is not None and change.ratio.tolist() == [2, 3, 5]
    assert change.kept_ratio is not None and change.kept_ratio.tolist() == [1, 2, 4]
    with pytest.raises(ValueError, match="run the old-log-prob forward pass first"):
        token_change(replace(batch, old_entropy=None), after)
