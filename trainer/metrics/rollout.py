"""Metrics of the rollouts of one step: rewards, lengths, groups without a signal.

It must not reshape rewards: these are the verifier's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.batch.types import CORRECT_ABOVE, Rollout


def rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """The ``rollout/*`` metrics of N verified rollouts; ValueError if there are none or one is not verified.

    A group has no signal when its rewards are all equal; it counts as all correct or all incorrect by
    ``CORRECT_ABOVE``. A group of one rollout has no signal by this definition. Lengths are sampled tokens, end token
    included.
    """
    if not rollouts:
        raise ValueError("rollout metrics got no rollouts; a step needs at least one")
    rewards = np.array([rollout.reward for rollout in rollouts], dtype=np.float64)
    lengths = np.array([len(rollout.completion_ids) - rollout.num_context for rollout in rollouts], dtype=np.float64)
    truncated = np.array([rollout.finish_reason == "length" for rollout in rollouts])
    groups, index = np.unique([rollout.group for rollout in rollouts], return_inverse=True)
    lowest, highest = np.full(len(groups), np.inf), np.full(len(groups), -np.inf)
    np.minimum.at(lowest, index, rewards)
    np.maximum.at(highest, index, rewards)
    silent = lowest == highest
    return {
        "rollout/reward": float(rewards.mean()),
        "rollout/reward_std": float(rewards.std()),
        "rollout/num_tokens": float(lengths.sum()),
        "rollout/length_mean": float(lengths.mean()),
        "rollout/length_max": float(lengths.max()),
        "rollout/truncated_frac": float(truncated.mean()),
        "rollout/unverifiable_frac": unverifiable_frac(rollouts),
        "rollout/zero_std_frac_all_incorrect": float((silent & (highest <= CORRECT_ABOVE)).mean()),
        "rollout/zero_std_frac_all_correct": float((silent & (highest > CORRECT_ABOVE)).mean()),
        **{f"rollout/{name}": value for name, value in failure_metrics(rollouts).items()},
    }


def unverifiable_frac(rollouts: Sequence[Rollout]) -> float:
    """Share of N verified rollouts whose answer the verifier could not compare with the correct one."""
    return sum(rollout.verdict is not None and not rollout.verdict.comparable for rollout in rollouts) / len(rollouts)


def failure_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """``verifier_failed_frac``: share of N verified rollouts on which a verifier hung, crashed or raised; absent where
    the task has none that runs in a process of its own."""
    failed = [rollout.verdict.failed for rollout in rollouts if rollout.verdict and rollout.verdict.failed is not None]
    return {"verifier_failed_frac": sum(failed) / len(failed)} if failed else {}


def generation_metrics(kept: Sequence[Rollout], generated: Sequence[float]) -> dict[str, float]:
    """What was sampled for the N rollouts that were kept; ``generated`` are the rewards of all responses."""
    return {
        "rollout/generated": float(len(generated)),
        "rollout/generated_reward": float(np.mean(generated)),
        "rollout/kept_frac": len(kept) / len(generated),
    }
