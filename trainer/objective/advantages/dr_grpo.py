"""Rewards minus the mean of their group (Dr. GRPO). Never sees log-probs."""

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
class DrGRPO(Advantage):
    """Reward minus the mean of its group, not divided by a deviation.

        advantage_i = reward_i - mean_group

    All-equal groups give exactly 0; a group of one keeps its reward. The method's second half is ``reduction=constant``
    with the generation budget in the denominator (the preset has both).

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(source="Dr. GRPO, arXiv 2503.20783; sail-sg/understand-r1-zero", status="published")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return needs_peers(run)

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        group = group_statistics(batch.rewards, batch.group)
        rewards = batch.rewards.double()
        return (rewards - group.mean).where(group.size > 1, rewards).float()
