"""Group-relative advantages: the numbers of specification 1.1, and groups that have nothing to compare."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from testbench import PAD, make_rollouts

from trainer.batch.collate import collate
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.groups import group_statistics

ROUNDING = 2e-6
"""Results are float32 numbers of order 1."""


def advantages(rewards: list[float], group: list[int], eps: float = 1e-6) -> list[float]:
    template = collate(make_rollouts(groups=1, group_size=len(rewards)), pad_id=PAD)
    batch = replace(template, rewards=torch.tensor(rewards, dtype=torch.float32), group=torch.tensor(group))
    return GRPO(eps=eps)(batch).tolist()


def test_one_right_of_four() -> None:
    # mean 1/4, sample std sqrt((9/16 + 3/16) / 3) = 1/2: 0.75 / 0.500001 = 1.499997, -0.25 / 0.500001 = -0.4999990.
    got = advantages([1, 0, 0, 0], [0, 0, 0, 0])
    assert got == pytest.approx([1.499997, -0.499999, -0.499999, -0.499999], abs=5e-7)


def test_two_right_of_eight() -> None:
    # mean 1/4, sample std sqrt((2 * 9/16 + 6 * 1/16) / 7) = sqrt(1.5 / 7) = 0.4629100: 1.62018 and -0.54006.
    assert advantages([1, 1, 0, 0, 0, 0, 0, 0], [0] * 8) == pytest.approx([1.62018] * 2 + [-0.54006] * 6, abs=5e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1.0, 1 / 3])
@pytest.mark.parametrize("eps", [1e-6, 0.0])
def test_equal_rewards_give_exactly_zero(value: float, eps: float) -> None:
    assert advantages([value] * 7, [4] * 7, eps) == [0.0] * 7


def test_a_group_of_one_keeps_its_reward() -> None:
    assert advantages([0.5, 1.0, 0.0, 1.0], [0, 1, 2, 2]) == pytest.approx(
        [0.5, 1.0, -0.7071058, 0.7071058], abs=ROUNDING
    )


def test_groups_do_not_see_each_other_and_need_not_be_in_order() -> None:
    alone = advantages([1, 0, 0, 0], [0, 0, 0, 0])
    mixed = advantages([5, 1, 5, 0, 0, 0], [7, 2, 7, 2, 2, 2])
    assert [mixed[row] for row in (1, 3, 4, 5)] == alone
    assert [mixed[0], mixed[2]] == [0.0, 0.0]


def test_eps_is_added_to_the_deviation() -> None:
    # std of (1, 0) is sqrt(1/2) = 0.7071068; 0.5 / (0.7071068 + 0.5) = 0.4142136.
    assert advantages([1, 0], [0, 0], eps=0.5) == pytest.approx([0.4142136, -0.4142136], abs=ROUNDING)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_mean_zero_unit_deviation_and_order_free(rewards: list[float], random: object) -> None:
    got = advantages(rewards, [0] * len(rewards))
    assert sum(got) == pytest.approx(0.0, abs=1e-5)
    if len(set(rewards)) > 1:
        assert statistics.stdev(got) == pytest.approx(1.0, abs=1e-4)
    order = list(range(len(rewards)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = advantages([rewards[index] for index in order], [0] * len(rewards))
    assert shuffled == pytest.approx([got[index] for index in order], abs=1e-6)


@pytest.mark.parametrize(("ddof", "deviation"), [(1, 0.5), (0, 0.4330127)])
def test_group_statistics_by_hand(ddof: int, deviation: float) -> None:
    # (1, 0, 0, 0): sum of squares about the mean 1/4 is 3/4; over 3 that is 1/4, over 4 it is 3/16.
    stats = group_statistics(torch.tensor([1.0, 3.0, 0.0, 0.0, 0.0]), torch.tensor([0, 1, 0, 0, 0]), ddof=ddof)
    assert stats.size.tolist() == [4, 1, 4, 4, 4]
    assert stats.mean.tolist() == [0.25, 3.0, 0.25, 0.25, 0.25]
    assert stats.std.tolist() == pytest.approx([deviation, 0.0, deviation, deviation, deviation], abs=1e-7)
    assert stats.constant.tolist() == [0, 1, 0, 0, 0]


def test_equal_values_are_their_own_mean_to_the_last_bit() -> None:
    # 0.1 summed up and divided again is not always 0.1; a deviation of 1e-17 over a deviation of 1e-17 would be 1.
    for size in range(1, 40):
        values = torch.full((size,), 0.1, dtype=torch.float64)  # float32 values would add up exactly in float64
        stats = group_statistics(values, torch.zeros(size, dtype=torch.int64))
        assert stats.mean.tolist() == values.tolist()
        assert stats.std.tolist() == [0.0] * size


def test_statistics_of_no_rewards_are_empty() -> None:
    assert group_statistics(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).mean.shape == (0,)
