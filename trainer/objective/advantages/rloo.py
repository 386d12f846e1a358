"""Rewards minus the mean of the others of their group (RLOO). Never sees log-probs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import group_statistics, needs_peers

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RLOO(Advantage):
    """Reward minus the mean reward of the other responses to its prompt: an unbiased baseline.

        advantage_i = reward_i - sum_{j != i} reward_j / (G - 1) = (reward_i - mean_group) * G / (G - 1)

    All-equal groups give exactly 0. A group of one has no others and keeps its reward (verl's convention).

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="Ahmadian et al., arXiv 2402.14740",
        status="published",
        departures="no KL term inside the reward",
    )

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return needs_peers(run)

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        group = group_statistics(batch.rewards, batch.group)
        rewards = batch.rewards.double()
        others = (rewards - group.mean) * group.size / (group.size - 1).clamp(min=1)
        return others.where(group.size > 1, rewards).float()
