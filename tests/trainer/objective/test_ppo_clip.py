"""Every case of the clipped surrogate by hand (specification 0.3), and its gradient against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from testbench import PAD, Bench, Toy, make_rollouts, off_policy, plain, widened
from torch import Tensor

from trainer.batch.collate import collate
from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.settings import ConfigError
from trainer.metrics.estimators import MAX_LOG_RATIO
from trainer.objective.base import SurrogateLoss
from trainer.objective.surrogates.ppo_clip import PPOClip


def tokens(ratios: list[float], advantages: list[float]) -> tuple[TokenTerms, ScoredBatch]:
    """One row of tokens with these ratios and advantages; log-probs are a float64 leaf."""
    template = collate(make_rollouts(groups=1, group_size=1, given=0), pad_id=PAD)
    ones = torch.ones(1, len(ratios))
    batch = replace(
        widened(template, len(ratios) - template.inputs.shape[1]),
        mask=ones.bool(),
        old_logprobs=torch.full((1, len(ratios)), -1.25, dtype=torch.float64),  # exact in binary
        advantages=torch.tensor([advantages], dtype=torch.float64),
    )
    logprobs = (torch.tensor([ratios], dtype=torch.float64).log() - 1.25).requires_grad_()
    return TokenTerms(logprobs=logprobs, entropy=torch.zeros_like(logprobs)), ScoredBatch.of(batch)


def evaluate(surrogate: PPOClip, ratios: list[float], advantages: list[float]) -> tuple[SurrogateLoss, Tensor]:
    terms, batch = tokens(ratios, advantages)
    out = surrogate(terms, batch)
    return out, torch.autograd.grad(out.loss.sum(), terms.logprobs)[0]


# ratio, advantage, loss, gradient with respect to the log-prob (d(-A r)/dl = -A r), clipped low, clipped high.
# Thresholds 0.2 / 0.3, dual clip 3: floor 0.8, ceiling 1.3.
CASES = [
    (1.0, 2.0, -2.0, -2.0, False, False),  # on policy
    (1.2, 2.0, -2.4, -2.4, False, False),  # inside
    (1.5, 2.0, -2.6, 0.0, False, True),  # A > 0 above the ceiling: -2 * 1.3
    (0.5, 2.0, -1.0, -1.0, False, False),  # A > 0 below the floor: max(-1, -1.6) keeps the gradient
    (1.0, -2.0, 2.0, 2.0, False, False),
    (0.9, -2.0, 1.8, 1.8, False, False),
    (0.5, -2.0, 1.6, 0.0, True, False),  # A < 0 below the floor: 2 * 0.8
    (1.5, -2.0, 3.0, 3.0, False, False),  # A < 0 above the ceiling: max(3, 2.6) keeps the gradient
    (2.5, -2.0, 5.0, 5.0, False, False),  # below the dual clip
    (4.0, -2.0, 6.0, 0.0, False, False),  # dual clip: min(8, 2 * 3)
    (4.0, 2.0, -2.6, 0.0, False, True),  # no dual clip for A > 0
    (1.5, 0.0, 0.0, 0.0, False, False),  # no advantage, no gradient
    (0.5, 0.0, 0.0, 0.0, False, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient", "low", "high"), CASES)
def test_every_case_by_hand(
    ratio: float, advantage: float, loss: float, gradient: float, low: bool, high: bool
) -> None:
    out, grad = evaluate(PPOClip(clip_low=0.2, clip_high=0.3, dual_clip=3.0), [ratio], [advantage])
    assert out.loss.item() == pytest.approx(loss, abs=1e-12)
    assert grad.item() == pytest.approx(gradient, abs=1e-12)
    assert (out.clipped_low.item(), out.clipped_high.item()) == (low, high)
    if gradient == 0:
        assert grad.item() == 0.0
    # Whoever has an advantage and no gradient has been clipped by one of the three, and nobody else.
    assert out.clipped.item() == (gradient == 0 and advantage != 0)
    assert out.clipped_dual is not None and out.clipped_dual.item() == (ratio == 4.0 and advantage < 0)


def test_the_dual_clip_has_a_fraction_of_its_own() -> None:
    # Every ratio is 4: tokens with A < 0 are beyond a dual clip of 3, and without thresholds nothing else is clipped.
    model = Toy()
    batch = off_policy(model)
    batch = replace(batch, old_logprobs=torch.where(batch.mask, batch.sampler_logprobs - math.log(4), 0.0))
    outcome = Bench(model).step(plain(surrogate=PPOClip(clip_low=None, clip_high=None, dual_clip=3.0)), batch)
    negative = (outcome.batch.advantages < 0) & batch.mask  # type: ignore[operator]
    means = outcome.stats.means()
    assert 0 < means["policy/clip_frac_dual"] == pytest.approx(int(negative.sum()) / batch.num_tokens)
    assert means["policy/clip_frac_high"] == means["policy/clip_frac_low"] == 0.0
    free = Bench(model).step(plain(surrogate=PPOClip(clip_low=None, clip_high=None)), batch)
    assert free.stats.means()["policy/clip_frac_dual"] == 0.0


@pytest.mark.parametrize("dual", [None, 3.0])
def test_gradient_is_exactly_zero_where_the_docstring_says_and_nowhere_else(dual: float | None) -> None:
    grid = [*product([0.01, 0.5, 0.79, 0.81, 1.0, 1.29, 1.31, 2.9, 3.1, 50.0], [-2.0, -0.1, 0.0, 0.1, 2.0])]
    _, grad = evaluate(
        PPOClip(clip_low=0.2, clip_high=0.3, dual_clip=dual), *(list(column) for column in zip(*grid, strict=True))
    )
    for (ratio, advantage), value in zip(grid, grad[0].tolist(), strict=True):
        zero = (
            (advantage > 0 and ratio > 1.3)
            or (advantage < 0 and ratio < 0.8)
            or (advantage < 0 and dual is not None and ratio > dual)
            or advantage == 0
        )
        assert (value == 0) == zero, (ratio, advantage)
        if not zero:
            assert value == pytest.approx(-advantage * ratio, rel=1e-12)


def test_ratio_one_is_plain_policy_gradient_whatever_the_thresholds() -> None:
    advantages = [2.0, -0.5, 0.25, -3.0]
    for low, high, dual in [
        (0.2, 0.2, None),
        (0.0, 0.0, None),
        (None, None, None),
        (0.2, None, 3.0),
        (None, 0.28, 10.0),
    ]:
        out, grad = evaluate(PPOClip(clip_low=low, clip_high=high, dual_clip=dual), [1.0] * 4, advantages)
        # d(-A l)/dl = -A, and the ratio is 1 exactly, so this is an equality. (A threshold of 0 has its kink here.)
        assert grad.tolist() == [[-a for a in advantages]], (low, high)
        assert not out.clipped_low.any()
        assert not out.clipped_high.any()


def test_no_thresholds_mean_no_clipping_however_far_the_ratio() -> None:
    ratios, advantages = [0.01, 0.5, 3.0, 90.0], [-1.0, -1.0, 1.0, 1.0]
    out, grad = evaluate(PPOClip(clip_low=None, clip_high=None), ratios, advantages)
    expected = [-a * r for a, r in zip(advantages, ratios, strict=True)]
    assert grad[0].tolist() == pytest.approx(expected, rel=1e-12)
    assert not (out.clipped_low | out.clipped_high).any()


def test_one_threshold_alone() -> None:
    only_low, grad_low = evaluate(PPOClip(clip_low=0.2, clip_high=None), [0.5, 9.0], [-1.0, 1.0])
    assert (only_low.clipped_low.tolist(), only_low.clipped_high.tolist()) == ([[True, False]], [[False, False]])
    assert grad_low[0].tolist() == pytest.approx([0.0, -9.0], rel=1e-12)
    only_high, grad_high = evaluate(PPOClip(clip_low=None, clip_high=0.2), [0.5, 9.0], [-1.0, 1.0])
    assert (only_high.clipped_low.tolist(), only_high.clipped_high.tolist()) == ([[False, False]], [[False, True]])
    assert grad_high[0].tolist() == pytest.approx([0.5, 0.0], rel=1e-12)


def test_dual_clip_without_other_thresholds() -> None:
    out, grad = evaluate(PPOClip(clip_low=None, clip_high=None, dual_clip=2.0), [1.5, 3.0, 3.0], [-1.0, -1.0, 1.0])
    assert out.loss[0].tolist() == pytest.approx([1.5, 2.0, -3.0], rel=1e-12)
    assert grad[0].tolist() == pytest.approx([1.5, 0.0, -3.0], rel=1e-12)


def test_finite_differences_away_from_the_kinks() -> None:
    surrogate = PPOClip(clip_low=0.2, clip_high=0.3, dual_clip=3.0)
    ratios = [0.3, 0.7, 0.9, 1.1, 1.25, 1.4, 2.0, 4.0] * 2
    terms, batch = tokens(ratios, [1.3] * 8 + [-0.7] * 8)
    assert torch.autograd.gradcheck(
        lambda logprobs: surrogate(TokenTerms(logprobs=logprobs, entropy=terms.entropy), batch).loss, terms.logprobs
    )


def test_absurd_ratios_stay_finite() -> None:
    surrogate = PPOClip(clip_low=None, clip_high=None)
    terms, batch = tokens([1.0, 1.0], [1.0, -1.0])
    far = TokenTerms(
        logprobs=(batch.old_logprobs + torch.tensor([[500.0, -500.0]])).requires_grad_(), entropy=terms.entropy
    )
    loss = surrogate(far, batch).loss
    assert loss[0].tolist() == pytest.approx([-math.exp(MAX_LOG_RATIO), math.exp(-MAX_LOG_RATIO)], rel=1e-12)
    assert torch.autograd.grad(loss.sum(), far.logprobs)[0].tolist() == [[0.0, 0.0]]


def test_clip_counts_ignore_what_was_not_sampled() -> None:
    terms, batch = tokens([5.0, 0.1, 5.0, 0.1], [1.0, -1.0, 1.0, -1.0])
    batch = replace(batch, mask=torch.tensor([[True, True, False, False]]))
    out = PPOClip()(terms, batch)
    assert (out.clipped_low.tolist(), out.clipped_high.tolist()) == (
        [[False, True, False, False]],
        [[True, False, False, False]],
    )


@pytest.mark.parametrize(
    "setting", [{"clip_low": -0.1}, {"clip_low": 1.5}, {"clip_high": -0.2}, {"dual_clip": 1.0}, {"dual_clip": 0.5}]
)
def test_thresholds_out_of_range_are_refused_in_a_sentence(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"surrogate\.{key}={value}.*give a number"):
        PPOClip(**setting)
