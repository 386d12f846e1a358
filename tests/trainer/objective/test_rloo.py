"""Leave-one-out baseline, by hand and against its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testbench import rewarded

from trainer.objective.advantages.rloo import RLOO


def test_one_right_of_four() -> None:
    # The correct one's others have mean 0; an incorrect one's others have mean 1/3.
    assert RLOO()(rewarded([1, 0, 0, 0])).tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3], abs=1e-7)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=2, max_size=9))
def test_baseline_is_the_mean_of_the_others(rewards: list[float]) -> None:
    expected = [
        reward - sum(rewards[:place] + rewards[place + 1 :]) / (len(rewards) - 1)
        for place, reward in enumerate(rewards)
    ]
    assert RLOO()(rewarded(rewards)).tolist() == pytest.approx(expected, abs=1e-6)


def test_equal_rewards_give_exactly_zero_and_a_group_of_one_keeps_its_reward() -> None:
    assert RLOO()(rewarded([0.1, 0.1, 0.1, 0.75], [2, 2, 2, 5])).tolist() == [0.0, 0.0, 0.0, 0.75]
