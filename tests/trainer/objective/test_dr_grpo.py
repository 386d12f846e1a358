"""Rewards less their group's mean: the numbers of specification 1.3."""

from __future__ import annotations

import pytest
import torch
from testbench import Bench, Toy, off_policy, plain, rewarded

from trainer.objective.advantages.dr_grpo import DrGRPO
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.groups import group_statistics
from trainer.objective.reductions import Constant


def test_one_right_of_four() -> None:
    assert DrGRPO()(rewarded([1, 0, 0, 0])).tolist() == [0.75, -0.25, -0.25, -0.25]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1.0])
def test_equal_rewards_give_exactly_zero(value: float) -> None:
    assert DrGRPO()(rewarded([value] * 7)).tolist() == [0.0] * 7


def test_a_group_of_one_keeps_its_reward_and_groups_do_not_see_each_other() -> None:
    assert DrGRPO()(rewarded([0.5, 1.0, 0.0, -1.0], [3, 0, 0, 7])).tolist() == [0.5, 0.5, -0.5, -1.0]


def test_it_is_grpo_without_the_deviation() -> None:
    batch = rewarded([1, 0, 0, 1, 0.5, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1, 0])
    std = group_statistics(batch.rewards, batch.group).std
    torch.testing.assert_close(DrGRPO()(batch), (GRPO(eps=0.0)(batch) * std).float(), rtol=0, atol=1e-6)


def test_twice_the_tokens_are_twice_the_contribution() -> None:
    # The second half of the method: a constant in the denominator. Every token of a row has the same share, so a row's
    # share of the loss grows with its length, and not with anybody else's.
    batch = off_policy(Toy())
    scale = Constant(length=8.0).scale(batch)
    assert torch.equal(scale, torch.full_like(scale, 1 / (8 * batch.num_rows)))
    half = Bench(Toy()).step(plain(advantage=DrGRPO(), reduction=Constant(length=8.0)), batch)
    whole = Bench(Toy()).step(plain(advantage=DrGRPO(), reduction=Constant(length=4.0)), batch)
    for name, value in half.gradient.items():
        torch.testing.assert_close(2 * value, whole.gradient[name], rtol=0, atol=1e-12)
