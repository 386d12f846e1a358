"""SimKO: whose log-prob the gradient of an uncertain token moves, and how much more a favourite is punished."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import Bench, Toy, off_policy, plain, policy, rewarded
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.surrogates.simko import SimKO


def gradients(simko: SimKO, advantage: float, ratio: float, likeliest: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, and its gradient by the sampled log-prob and by the candidates', of a response of two tokens of
    probability 1/4, the second one forking."""
    batch = rewarded([1.0])
    mask = torch.zeros_like(batch.mask)
    mask[0, :2] = True
    shape = batch.sampler_logprobs
    batch = replace(batch, mask=mask, advantages=torch.full_like(shape, advantage) * mask)
    logprobs = torch.full_like(shape, 0.25).log().requires_grad_()
    candidates = torch.full_like(shape, -2.0).requires_grad_()
    entropy = torch.zeros_like(shape)
    entropy[0, 1] = 1.0
    extras = {f"top_k_logprobs@{simko.top_k}": candidates, "top_k_mass@1": torch.full_like(shape, likeliest)}
    batch = replace(batch, old_logprobs=(logprobs / 1.0).detach() - torch.tensor(ratio).log())
    found = simko(TokenTerms(logprobs=logprobs, entropy=entropy, extras=extras), ScoredBatch.of(batch))
    of_sampled, of_candidates = torch.autograd.grad(found.loss[mask].sum(), [logprobs, candidates], allow_unused=True)
    nothing = torch.zeros_like(shape)
    return found.loss[mask].detach(), of_sampled[mask], (nothing if of_candidates is None else of_candidates)[mask]


def test_the_candidates_share_the_gradient_of_a_forking_token_and_the_value_stays() -> None:
    loss, sampled, candidates = gradients(SimKO(smoothing=0.25), advantage=2.0, ratio=0.5)
    assert loss.tolist() == [-1.0, -1.0]
    assert sampled.tolist() == [-1.0, -0.75]
    assert candidates.tolist() == [0.0, -0.25]


def test_where_the_sampled_tokens_ratio_is_clipped_nobody_gets_any() -> None:
    loss, sampled, candidates = gradients(SimKO(smoothing=0.25), advantage=1.0, ratio=2.0)
    assert loss.tolist() == pytest.approx([-1.2, -1.2])
    assert not sampled.any() and not candidates.any()


def test_a_favourite_is_punished_more_and_anybody_else_as_ever() -> None:
    simko = SimKO(penalty=1.5)
    assert gradients(simko, -1.0, 1.0, likeliest=0.25)[1].tolist() == [1.0, 1.5]
    assert gradients(simko, -1.0, 1.0, likeliest=0.5)[1].tolist() == [1.0, 1.0]
    assert gradients(replace(simko, smoothing=0.0), 1.0, 1.0, likeliest=0.25)[1].tolist() == [-1.0, -1.0]


def test_the_statistics_are_the_models() -> None:
    simko, batch = SimKO(top_k=2), off_policy(Toy())
    terms = policy(Toy()).measure(batch, simko.statistics)
    assert set(terms.extras) == {"top_k_logprobs@2", "top_k_mass@1"}
    assert (terms.extras["top_k_mass@1"][batch.mask] >= terms.logprobs[batch.mask].exp() - 1e-6).all()
    assert SimKO(smoothing=0.0, penalty=1.0).statistics == frozenset()


def test_with_one_candidate_and_the_whole_share_only_the_favourite_moves() -> None:
    """In the model: a step along SimKO's gradient raises the likeliest token where PPO's raises the sampled one."""
    batch = off_policy(Toy())
    ppo, simko = (
        Bench(Toy()).step(plain(surrogate=s), batch) for s in (PPOClip(), SimKO(smoothing=1.0, top_k=1, penalty=1.0))
    )
    assert simko.distance(ppo) > 1e-3
    assert simko.stats.means() == ppo.stats.means() | {"policy/grad_norm": simko.stats.means()["policy/grad_norm"]}
