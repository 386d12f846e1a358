"""Overlong punishment, unlikeliness, the anchor penalty (specification 1.2, 14.6 and 13.2) and random rewards."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from testbench import (
    CONTEXT,
    PAD,
    ModelServices,
    Toy,
    make_rollouts,
    off_policy,
    on_policy,
    plain,
    policy,
    rewarded,
    unpacked,
)

from trainer.batch.collate import collate
from trainer.batch.types import TokenBatch, Verdict
from trainer.contract.settings import ConfigError
from trainer.loop import with_advantages
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.base import Context
from trainer.objective.shaping.apr import APR, tail
from trainer.objective.shaping.overlong import Overlong
from trainer.objective.shaping.random_reward import RandomReward
from trainer.objective.shaping.unlikeliness import Unlikeliness


def of_length(length: int, reward: float = 0.0) -> TokenBatch:
    batch = rewarded([reward])
    return replace(batch, lengths=batch.prompt_lengths + length - 1)


@pytest.mark.parametrize(("length", "penalty"), [(1, 0), (79, 0), (80, 0), (90, -0.5), (100, -1.0), (130, -1.0)])
def test_overlong_by_hand(length: int, penalty: float) -> None:
    # max_tokens 100, buffer 0.2 * 100 = 20: from 80 on, 1/20 a token.
    assert Overlong(max_tokens=100)(of_length(length), CONTEXT).tolist() == pytest.approx([penalty], abs=1e-7)
    shaped = Overlong(max_tokens=100, factor=0.5)(of_length(length, reward=1.0), CONTEXT)
    assert shaped.tolist() == pytest.approx([1 + penalty / 2], abs=1e-7)


def test_overlong_counts_every_token_of_the_response_and_none_of_the_prompt() -> None:
    model = Toy()
    batch = on_policy(model)
    given = torch.tensor([2, 2] + [0] * 10)  # the first two rollouts of the bench start with two given tokens
    expected = [-min(1, length / 10) for length in (batch.mask.sum(dim=1) + given).tolist()]
    shaped = Overlong(max_tokens=10, buffer_frac=1.0)(replace(batch, rewards=torch.zeros(12)), CONTEXT)
    assert shaped.tolist() == pytest.approx(expected, abs=1e-6)


def ranked(means: list[float], rewards: list[float], group: list[int] | None = None) -> TokenBatch:
    """Rollouts whose tokens all have log-prob ``means[i]``; NaN where nothing was sampled."""
    batch = rewarded(rewards, group)
    logprobs = torch.tensor(means)[:, None].expand(batch.mask.shape)
    return replace(batch, sampler_logprobs=torch.where(batch.mask, logprobs, torch.full((), torch.nan)))


def test_unlikeliness_from_least_to_most_likely() -> None:
    # 1 - 0.25 * rank / 4.
    batch = ranked([-4.0, -3.0, -2.0, -1.0], [1, 1, 1, 1])
    assert Unlikeliness()(batch, CONTEXT).tolist() == [1.0, 0.9375, 0.875, 0.8125]
    shuffled = ranked([-2.0, -4.0, -1.0, -3.0], [1, 1, 1, 1])
    assert Unlikeliness()(shuffled, CONTEXT).tolist() == [0.875, 1.0, 0.8125, 0.9375]


def test_unlikeliness_gives_an_all_right_group_a_signal_and_an_all_wrong_one_none() -> None:
    objective = plain(shaping=Unlikeliness())
    batch = ranked([-4.0, -3.0, -2.0, -1.0] * 2, [1, 1, 1, 1, 0, 0, 0, 0], [0] * 4 + [1] * 4)
    ready = with_advantages(replace(batch, sampler_logprobs=batch.sampler_logprobs.nan_to_num()), objective, CONTEXT)
    advantage = torch.stack([row[mask][0] for row, mask in zip(ready.advantages, ready.mask, strict=True)])  # type: ignore[arg-type]
    assert (advantage[:2] > 0).all() and (advantage[2:4] < 0).all()
    assert advantage[4:].tolist() == [0.0] * 4


def test_unlikeliness_ranks_among_all_and_leaves_wrong_ones_alone() -> None:
    batch = ranked([-4.0, -3.0, -2.0, -1.0], [0, 1, -1.0, 1])
    assert Unlikeliness()(batch, CONTEXT).tolist() == [0.0, 0.9375, -1.0, 0.8125]


def test_unlikeliness_of_equal_likelihoods_is_equal() -> None:
    # Ranks 0, then 1, 2 and 3 shared: 2.
    batch = ranked([-4.0, -1.0, -1.0, -1.0], [1, 1, 1, 1])
    assert Unlikeliness()(batch, CONTEXT).tolist() == [1.0, 0.875, 0.875, 0.875]


def test_unlikeliness_is_of_the_mean_and_not_of_the_sum() -> None:
    # Two tokens of -1 are less likely than one of -1.5, and likelier on average.
    batch = rewarded([1, 1])
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[0, :2], mask[1, :1] = True, True
    logprobs = torch.tensor([[-1.0, -1.0, 9.0, 9.0], [-1.5, 9.0, 9.0, 9.0]])
    assert Unlikeliness()(replace(batch, mask=mask, sampler_logprobs=logprobs), CONTEXT).tolist() == [0.875, 1.0]


def test_unlikeliness_in_a_group_of_one_or_without_tokens() -> None:
    batch = ranked([-2.0], [1])
    assert Unlikeliness()(batch, CONTEXT).tolist() == [1.0]
    assert Unlikeliness()(replace(batch, mask=torch.zeros_like(batch.mask)), CONTEXT).tolist() == [1.0]


def judged(*responses: tuple[str, int | None]) -> tuple[TokenBatch, Context]:
    """Correct responses with the text and the anchor given, as a batch and where a shaping finds them."""
    rollouts = [
        replace(rollout, text=text, verdict=Verdict(reward=1.0, anchor=anchor))
        for rollout, (text, anchor) in zip(
            make_rollouts(groups=1, group_size=len(responses), given=0), responses, strict=True
        )
    ]
    services = ModelServices(policy=policy(Toy()), rollouts=tuple(rollouts))
    return collate(rollouts, pad_id=PAD), replace(CONTEXT, services=services)


def test_the_tail_is_what_stands_after_the_anchor() -> None:
    batch, context = judged(("4*7=28,28-2=26", 14), ("4*7=28,28-2=26,26/1=26", 14), ("28", None))
    assert context.services is not None and [tail(rollout) for rollout in context.services.rollouts] == [0, 8, 0]
    # 0.5 * 8 / 16 is taken off the second.
    assert APR(coef=0.5, max_tail=16)(batch, context).tolist() == [1.0, 0.75, 1.0]


@pytest.mark.parametrize(("after", "penalty"), [(0, 0.0), (5, 0.25), (10, 0.5), (11, 0.5), (200, 0.5)])
def test_anchor_penalty_grows_with_the_tail_up_to_its_limit(after: int, penalty: float) -> None:
    batch, context = judged(("1+1=2" + "x" * after, 5))
    assert APR(coef=0.5, max_tail=10)(batch, context).tolist() == pytest.approx([1 - penalty], abs=1e-7)


def test_what_comes_before_the_anchor_costs_nothing() -> None:
    batch, context = judged(("1+1=2,xx", 5), ("1+1=2,2+3=5,5+5=10,xx", 18))
    assert APR()(batch, context).unique().tolist() == pytest.approx([1 - 0.5 * 3 / 20])


def test_random_rewards_depend_on_run_step_and_row_alone() -> None:
    batch = off_policy(Toy())
    first = RandomReward()(batch, CONTEXT)
    assert torch.equal(first, RandomReward()(replace(batch, rewards=1 - batch.rewards), CONTEXT))
    assert not torch.equal(first, RandomReward()(batch, replace(CONTEXT, step=CONTEXT.step + 1)))
    assert not torch.equal(first, RandomReward()(batch, replace(CONTEXT, seed=CONTEXT.seed + 1)))
    assert RandomReward(p=0.0)(batch, CONTEXT).sum() == 0
    assert RandomReward(p=1.0)(batch, CONTEXT).sum() == batch.num_rows


def test_random_rewards_are_right_half_of_the_time_and_tell_nothing_of_the_response() -> None:
    correct = torch.tensor([1.0, 0.0] * 8).repeat(500)
    drawn = RandomReward()(rewarded(correct.tolist()), CONTEXT)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=3 * 0.5 / 8000**0.5)
    assert float(torch.corrcoef(torch.stack([drawn, correct]))[0, 1]) == pytest.approx(0, abs=3 / 8000**0.5)


def every_group(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards and GRPO advantages [2**size, size] of all groups of coin flips, which are equally likely."""
    rewards = torch.tensor(list(itertools.product([0.0, 1.0], repeat=size)))
    batch = rewarded(rewards.flatten().tolist(), group=torch.arange(2**size).repeat_interleave(size).tolist())
    return rewards, GRPO(eps=0.0)(batch).view(-1, size)


def test_advantages_of_random_rewards_are_bounded_and_have_no_odd_moments() -> None:
    # arXiv 2512.16912: |A| <= sqrt(G) - 1/sqrt(G), reached by the one reward of a group (with std of ddof 1).
    _, advantages = every_group(4)
    assert float(advantages.abs().max()) == pytest.approx(2 - 1 / 2, abs=1e-6)
    for moment in (1, 3, 5):
        assert float((advantages[:, 0].double() ** moment).mean()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("correct", [0, 1, 2, 3, 4])
def test_advantage_that_correct_responses_lose_to_random_rewards(correct: int) -> None:
    # arXiv 2512.16912: with n_c right of G the loss has mean n_c (G - n_c) / G and variance n_c (G - n_c) / (4 G).
    rewards, _ = every_group(4)
    truth = torch.tensor([1.0] * correct + [0.0] * (4 - correct))
    lost = ((truth - truth.mean()) - (rewards - rewards.mean(dim=1, keepdim=True)))[:, :correct].sum(dim=1)
    assert float(lost.mean()) == pytest.approx(correct * (4 - correct) / 4, abs=1e-6)
    assert float(lost.var(correction=0)) == pytest.approx(correct * (4 - correct) / 16, abs=1e-6)


def test_random_rewards_move_nothing_on_average() -> None:
    # Over all equally likely groups of 4 the advantages of each response sum to 0, and so does its gradient.
    _, advantages = every_group(4)
    assert advantages.sum(dim=0).tolist() == pytest.approx([0.0] * 4, abs=1e-5)


@pytest.mark.parametrize("shaping", [Overlong(factor=0.0), Unlikeliness(beta=0.0), APR(coef=0.0)])
def test_neutral_settings_return_the_rewards_bit_for_bit(shaping: Any) -> None:
    batch = off_policy(Toy())
    context = replace(CONTEXT, services=ModelServices(policy=policy(Toy()), rollouts=unpacked(batch)))
    assert torch.equal(shaping(batch, context), batch.rewards)


@pytest.mark.parametrize(
    ("shaping", "settings"),
    [
        (Overlong, {"max_tokens": 0}),
        (Overlong, {"buffer_frac": 0.0}),
        (Overlong, {"factor": -1.0}),
        (Unlikeliness, {"beta": 1.1}),
        (Unlikeliness, {"beta": -0.1}),
        (APR, {"coef": -1.0}),
        (APR, {"max_tail": 0}),
        (RandomReward, {"p": 1.5}),
    ],
)
def test_settings_out_of_range_are_refused(shaping: Any, settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"shaping\.{next(iter(settings))}="):
        shaping(**settings)
