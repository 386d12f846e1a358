"""rollout/* by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from trainer.batch.types import Rollout, Verdict
from trainer.metrics.rollout import generation_metrics, rollout_metrics
from trainer.metrics.table import check


def test_by_hand(make_rollout: Callable[..., Rollout]) -> None:
    rewards = {0: (0.0, 0.0), 1: (1.0, 1.0), 2: (0.0, 1.0), 5: (0.0, 0.0)}
    rollouts = [make_rollout(group, reward=reward) for group, pair in rewards.items() for reward in pair]
    rollouts[0] = replace(rollouts[0], completion_ids=(1,) * 11, num_context=3, finish_reason="length")
    rollouts[1] = replace(rollouts[1], verdict=Verdict(reward=0.0, answer="?", comparable=False))
    metrics = rollout_metrics(rollouts)
    check(metrics)
    # 3 of 8 rewards are 1: mean 3/8, variance 3/8 * 5/8. Seven responses of 3 tokens, one of 11 - 3 sampled ones.
    assert metrics == pytest.approx(
        {
            "rollout/reward": 0.375,
            "rollout/reward_std": (15 / 64) ** 0.5,
            "rollout/num_tokens": 29,
            "rollout/length_mean": 29 / 8,
            "rollout/length_max": 8,
            "rollout/truncated_frac": 1 / 8,
            "rollout/unverifiable_frac": 1 / 8,
            "rollout/zero_std_frac_all_incorrect": 0.5,
            "rollout/zero_std_frac_all_correct": 0.25,
        }
    )


def test_what_was_thrown_away_by_hand(make_rollout: Callable[..., Rollout]) -> None:
    kept = [make_rollout(0, reward=reward) for reward in (0.0, 1.0)]
    metrics = generation_metrics(kept, [0.0, 1.0, 1.0, 1.0, 0.0])
    check(metrics)
    assert metrics == {"rollout/generated": 5, "rollout/generated_reward": 0.6, "rollout/kept_frac": 0.4}


def test_equal_fractional_rewards_are_split_at_the_threshold(make_rollout: Callable[..., Rollout]) -> None:
    # -1 and 0.5 do not exceed 0.5, 0.6 does. Group 3 is not silent.
    rewards = {0: (-1.0, -1.0), 1: (0.5, 0.5), 2: (0.6, 0.6), 3: (0.6, 0.7)}
    rollouts = [make_rollout(group, reward=reward) for group, pair in rewards.items() for reward in pair]
    metrics = rollout_metrics(rollouts)
    assert metrics["rollout/zero_std_frac_all_incorrect"] == 0.5
    assert metrics["rollout/zero_std_frac_all_correct"] == 0.25


def test_refuses_nothing_and_unverified(make_rollout: Callable[..., Rollout]) -> None:
    with pytest.raises(ValueError, match="no rollouts"):
        rollout_metrics([])
    with pytest.raises(ValueError, match="has not been verified"):
        rollout_metrics([replace(make_rollout(), verdict=None)])
