"""Powers of the odds: MaxRL's numbers, GRPO's, and the family between them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from testbench import rewarded

from trainer.objective.advantages.grpo import GRPO
from trainer.objective.advantages.odds_power import OddsPower


def test_one_of_four_correct() -> None:
    # MaxRL: (1 - 1/4) / (1/4) = 3 and -(1/4) / (1/4) = -1.
    batch = rewarded([1.0, 0.0, 0.0, 0.0])
    assert OddsPower()(batch).tolist() == pytest.approx([3.0, -1.0, -1.0, -1.0])
    # AsymGRPO: 3^0.9 = 2.687876 and -3^-0.4 = -0.644394.
    asym = OddsPower(positive=0.9, negative=0.4)
    assert asym(batch).tolist() == pytest.approx([2.687876, *[-0.644394] * 3], abs=1e-5)
    assert OddsPower(positive=0.0)(batch).tolist() == [1.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize("successes", range(1, 8))
def test_maxrl_is_the_reward_over_the_mean_and_halves_are_grpo(successes: int) -> None:
    batch = rewarded([1.0] * successes + [0.0] * (8 - successes))
    mean = successes / 8
    torch.testing.assert_close(OddsPower()(batch), (batch.rewards - mean) / mean)
    # GRPO divides by the sample's deviation, sqrt(8 / 7) of the population's.
    population = GRPO(eps=0.0)(batch) * math.sqrt(8 / 7)
    torch.testing.assert_close(OddsPower(positive=0.5, negative=0.5)(batch), population)


def test_groups_without_a_spread_give_nothing_and_groups_do_not_mix() -> None:
    batch = rewarded([0.0, 0.0, 1.0, 1.0, 1.0, 0.0], [0, 0, 1, 1, 2, 2])
    for member in (OddsPower(), OddsPower(positive=0.0), OddsPower(positive=0.9, negative=0.4)):
        assert member(batch).tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0, -1.0])


def test_it_asks_whether_a_response_is_correct_and_no_more() -> None:
    batch = rewarded([1.0, 0.0])
    shaped = replace(batch, rewards=torch.tensor([0.3, 0.2]))
    assert torch.equal(OddsPower()(shaped), OddsPower()(batch))
