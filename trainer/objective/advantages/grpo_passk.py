"""Only the best response of a group learns, by its lead over the second best. Never sees log-probs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import group_statistics

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPOPassK(Advantage):
    """The lead of the best response over the second best; 0 for all others.

        advantage_i = (r_max - r_second) / (std_group + eps) if reward_i = r_max else 0

    ``r_second`` is the second largest reward, equal to ``r_max`` where several are best: then nobody leads. With
    rewards 0 and 1 only groups with exactly one correct response train. A group of one gives 0.

    Shape: [N]; unit: standard deviations, or reward with ``divide_by_std=False``.
    """

    about: ClassVar[About] = About(source="arXiv 2503.19595 as in verl (grpo_passk)", status="released")

    divide_by_std: bool = True
    """Divide by the group's standard deviation (ddof 1)."""
    eps: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        require(self.eps >= 0, "advantage.eps", self.eps, "it is added to a standard deviation, so at least 0")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if run.rollout.group_size == 1:
            yield Diagnostic(
                message="rollout.group_size=1 leaves no second best, so all advantages are 0: raise rollout.group_size"
            )

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        rewards = batch.rewards.double()
        lead = torch.zeros_like(rewards)
        for number in torch.unique(batch.group):
            rows = (batch.group == number).nonzero().squeeze(1)
            if len(rows) > 1:
                best = rewards[rows].topk(2)
                lead[rows[best.indices[0]]] = best.values[0] - best.values[1]
        std = group_statistics(batch.rewards, batch.group).std + self.eps if self.divide_by_std else 1.0
        return (lead / std).where(lead > 0, torch.zeros_like(lead)).float()
