"""OPO: the length-weighted baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import rewarded

from trainer.batch.types import TokenBatch
from trainer.objective.advantages.dr_grpo import DrGRPO
from trainer.objective.advantages.opo import OPO


def of_lengths(rewards: list[float], lengths: list[int], group: list[int] | None = None) -> TokenBatch:
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return replace(rewarded(rewards, group), mask=mask)


def test_by_hand() -> None:
    # Lengths 1, 2, 5: the baseline is (1 * 1 + 2 * 0 + 5 * 0.4) / 8 = 0.375.
    batch = of_lengths([1.0, 0.0, 0.4], [1, 2, 5])
    assert OPO()(batch).tolist() == pytest.approx([0.625, -0.375, 0.025])


def test_equal_lengths_are_the_plain_mean_and_groups_do_not_mix() -> None:
    batch = of_lengths([1.0, 0.0, 0.0, 1.0, 1.0, 0.5], [3] * 6, [0, 0, 0, 1, 1, 1])
    torch.testing.assert_close(OPO()(batch), DrGRPO()(batch))


def test_the_length_weighted_sum_of_a_group_is_nothing() -> None:
    batch = of_lengths([1.0, 0.0, 0.25, 0.0], [4, 1, 7, 2])
    assert float(OPO()(batch) @ torch.tensor([4.0, 1.0, 7.0, 2.0])) == pytest.approx(0.0, abs=1e-6)


def test_equal_rewards_give_exactly_nothing_and_a_group_of_one_keeps_its_reward() -> None:
    assert OPO()(of_lengths([0.7] * 3, [1, 3, 6])).tolist() == [0.0] * 3
    assert OPO()(of_lengths([0.5, 1.0, 0.0], [2, 2, 2], [0, 1, 1])).tolist() == pytest.approx([0.5, 0.5, -0.5])


def test_responses_without_a_token_do_not_count() -> None:
    assert OPO()(of_lengths([1.0, 0.0, 0.0], [0, 1, 1])).tolist() == pytest.approx([1.0, 0.0, 0.0])
    empty = replace(of_lengths([1.0, 0.0], [1, 1]), mask=torch.zeros(2, 1, dtype=torch.bool))
    assert OPO()(empty).tolist() == pytest.approx([0.5, -0.5])
