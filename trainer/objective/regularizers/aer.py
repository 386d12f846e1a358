"""AER's entropy bonus: more of it on harder prompts. Row-local; called through the ``regularizer`` slot.

The coefficient is meant to be driven by ``controller=[aer]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Regularizer
from trainer.objective.groups import group_statistics

SHARE = "aer_share"
"""Column of ``batch.extras``: each row's share of the coefficient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AER(Regularizer):
    """Entropy bonus whose weight rises linearly as the accuracy of the prompt falls below a threshold.

        accuracy = mean of raw_rewards over the prompt's group
        share    = max(0, (accuracy_max - accuracy) / accuracy_max)
        term     = -coef * share * scale * entropy

    Aggregated like the policy loss. Prompts of accuracy ``accuracy_max`` or more get no bonus. ``coef=0`` is plain
    GRPO.

    Shape [N, T]; coef in loss units per nat, share dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            '"Revisiting Entropy Regularization", arXiv 2510.10959, of which the abstract and summaries were read: '
            "difficulty-aware allocation of the coefficient is theirs, its formula is ours"
        ),
        status="reconstructed",
        departures=(
            "the ramp, its threshold (rho) and the aggregation are assumed; rewards are taken to run from 0 to 1"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: float = 0.0
    """Weight of the bonus for a prompt that is never solved (alpha); the controller starts from 0."""
    accuracy_max: float = 1.0
    """Accuracy (rho) from which a prompt gets no bonus."""

    def __post_init__(self) -> None:
        require(0 <= self.coef < 100, "regularizer.aer.coef", self.coef, "give a coefficient of at least 0, below 100")
        require(
            0 < self.accuracy_max <= 1,
            "regularizer.aer.accuracy_max",
            self.accuracy_max,
            "an accuracy threshold lies above 0 and is at most 1",
        )

    @property
    def active(self) -> bool:
        return self.coef != 0

    def columns(self, batch: TokenBatch, context: Context) -> dict[str, Tensor]:
        accuracy = group_statistics(batch.raw_rewards, batch.group).mean
        return {SHARE: (1 - accuracy / self.accuracy_max).clamp(min=0).to(batch.raw_rewards.dtype)}

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        return -self.coef * batch.extras[SHARE][:, None] * scale * terms.entropy
