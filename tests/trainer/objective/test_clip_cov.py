"""Clip-Cov: who is eligible, who is drawn, and the identities of specification 3.3."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from handmade import HERE, handmade
from testbench import CONTEXT, Bench, Toy, off_policy, on_policy, plain, policy

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.settings import ConfigError
from trainer.loop import with_advantages
from trainer.objective.base import Context, SurrogateLoss
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.surrogates.unclipped import Unclipped
from trainer.objective.weights.clip_cov import ClipCov
from trainer.update.gradient import with_old_terms

ALL = ClipCov(frac=1.0)
"""Everybody eligible is drawn."""

LOGPROBS, ADVANTAGES = [[-0.1, -0.1], [-2.0, -3.0]], [[1.0, 1.0], [-1.0, -1.0]]
"""Cov = [1.2, 1.2, 0.7, 1.7]."""


def weights(member: ClipCov, context: Context = HERE, **columns: list[list[float]]) -> list[float]:
    terms, batch = handmade(LOGPROBS, ADVANTAGES, **columns)
    values: list[float] = member(batch, terms.detach(), context).flatten().tolist()
    return values


def test_eligible_are_the_covariances_within_the_band() -> None:
    assert weights(ALL) == [0, 0, 1, 0]
    assert weights(replace(ALL, cov_low=1.5)) == [1, 1, 1, 0]
    assert weights(replace(ALL, cov_high=1.5)) == [0, 0, 1, 1]


def test_the_ends_of_the_band_are_outside() -> None:
    # Means -2 and 0, exact in binary: both covariances are 1.
    terms, batch = handmade([[-1.0, -3.0]], [[1.0, -1.0]])
    for low, high, kept in ((1.0, 5.0, 1.0), (0.5, 1.0, 1.0), (0.5, 1.5, 0.0)):
        member = ClipCov(frac=1.0, cov_low=low, cov_high=high)
        assert member(batch, terms.detach(), HERE).tolist() == [[kept, kept]]


def test_tokens_that_the_surrogate_clips_already_are_not_eligible() -> None:
    # Ratio e^0.5 with A > 0 is above 1.2; ratio e^-0.5 with A < 0 below 0.8.
    old = [[-0.6, -0.1], [-2.0, -2.5]]
    assert weights(ALL, old=old) == [1, 0, 1, 1]
    assert weights(ALL, replace(HERE, surrogate=Unclipped()), old=old) == [0, 0, 1, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked(PPOClip):
    """Clips the tokens of a column that it made itself."""

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> dict[str, torch.Tensor]:
        return {"marked": batch.advantages > 0}

    def __call__(self, terms: TokenTerms, batch: TokenBatch) -> SurrogateLoss:
        marked = batch.extras["marked"]
        return SurrogateLoss(loss=terms.logprobs, clipped_low=torch.zeros_like(marked), clipped_high=marked)


def test_a_surrogate_that_needs_its_own_columns_can_be_asked() -> None:
    terms, batch = handmade(LOGPROBS, ADVANTAGES)
    objective = plain(surrogate=Marked(), weight={"clip_cov": ALL})
    ready = objective.prepare(batch, terms.detach(), CONTEXT, objective.initial_state())
    assert ready.weights.flatten().tolist() == [1, 1, 1, 0]


def test_the_draw_has_the_right_size_and_depends_on_step_and_seed_only() -> None:
    member = ClipCov(frac=0.5)  # 2 of 4 tokens, from three eligible ones
    seen = set()
    for step in range(20):
        context = replace(HERE, step=step)
        drawn = weights(member, context)
        assert sum(drawn) == 2
        assert drawn[2] == 1
        assert weights(member, context) == drawn
        seen.add(tuple(drawn))
    assert len(seen) == 3
    assert sum(weights(ClipCov())) == 3  # at least one
    assert weights(ClipCov(frac=0.0)) == [1, 1, 1, 1]


@pytest.mark.parametrize("member", [ClipCov(frac=0.5, cov_low=1e6, cov_high=2e6), ClipCov(frac=0.0)])
def test_nobody_eligible_is_ppo_bit_for_bit(member: ClipCov) -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    assert bench.step(plain(weight={"clip_cov": member}), batch).distance(bench.step(plain(), batch)) == 0.0


def test_a_constant_advantage_has_no_covariance() -> None:
    terms, batch = handmade(LOGPROBS, [[1.0, 1.0], [1.0, 1.0]])
    assert ALL(batch, terms.detach(), HERE).flatten().tolist() == [1, 1, 1, 1]


def test_drawn_tokens_lose_their_gradient_and_the_denominator_stays() -> None:
    model = Toy()
    bench, batch = Bench(model), on_policy(model)
    band = ClipCov(frac=1.0, cov_low=0.5, cov_high=1e6)
    ours = bench.step(plain(weight={"clip_cov": band}), batch)
    terms = policy(model).measure(batch)
    out = band(with_old_terms(with_advantages(batch, plain(), CONTEXT), terms), terms, HERE) == 0
    assert 0 < int(out.sum()) < batch.num_tokens
    # What is left is the gradient of the other tokens, times their share of the denominator.
    rest = replace(batch, mask=batch.mask & ~out)
    alone = bench.step(plain(), rest)
    ratio = rest.num_tokens / batch.num_tokens
    for name, value in ours.gradient.items():
        torch.testing.assert_close(value, ratio * alone.gradient[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("setting", [{"frac": -0.1}, {"frac": 1.5}, {"cov_low": 9.0}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"weight\.clip_cov\.{key}={value}"):
        ClipCov(**setting)
