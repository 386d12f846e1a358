"""Rewards minus the length-weighted mean of their group (OPO). Never sees log-probs."""

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
class OPO(Advantage):
    """The baseline of least variance, if the squared gradient of a response grows with its length.

        advantage_i = reward_i - sum_j |o_j| reward_j / sum_j |o_j|           sums over the group, |o| in tokens

    Not divided by a deviation. All-equal groups give exactly 0; a group of one keeps its reward. Responses of equal
    length make it ``advantage=dr_grpo``.

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="OPO, arXiv 2505.23585; verl's compute_opo_outcome_advantage", status="published"
    )

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return needs_peers(run)

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        rewards, length = batch.rewards.double(), batch.mask.sum(dim=1).double()
        group = group_statistics(rewards, batch.group)
        # Means over the group of both: their quotient is that of the sums. A group without any token has no weights.
        weighted = group_statistics(length * rewards, batch.group).mean
        total = group_statistics(length, batch.group).mean
        baseline = (weighted / total).where(total > 0, group.mean)
        advantages = (rewards - baseline).masked_fill(group.constant.bool(), 0.0)
        return advantages.where(group.size > 1, rewards).float()
