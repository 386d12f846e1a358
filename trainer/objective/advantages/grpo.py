"""Group-relative advantages (GRPO). Never sees log-probs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import group_statistics, needs_peers

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPO(Advantage):
    """Reward standardised within the group of its prompt.

        advantage_i = (reward_i - mean_group) / (std_group + eps)

    ``std_group`` is the sample standard deviation (ddof 1). All-equal groups give exactly 0. A group of one has no
    spread to compare with: mean 0 and std 1, so the advantage is the reward (verl's convention).

    Shape: [N]; unit: standard deviations.
    """

    about: ClassVar[About] = About(source="DeepSeekMath, arXiv 2402.03300; eps and ddof as in verl", status="published")

    neutral: ClassVar[dict[str, object] | None] = {"eps": 1e-6}

    eps: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        require(self.eps >= 0, "advantage.eps", self.eps, "it is added to a standard deviation, so at least 0")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return needs_peers(run)

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        group = group_statistics(batch.rewards, batch.group)
        scaled = (batch.rewards.double() - group.mean) / (group.std + self.eps)
        single = group.size == 1
        advantage = scaled.masked_fill(group.constant.bool() & ~single, 0.0)
        return advantage.where(~single, batch.rewards.double()).float()
