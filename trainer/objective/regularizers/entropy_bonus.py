"""A bonus on the entropy of the policy. Row-local; called through the ``regularizer`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Regularizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyBonus(Regularizer):
    """Full-vocabulary entropy of the current policy, with its gradient.

        term = -coef * scale * entropy,      d entropy / d logits_a = -pi_a (log pi_a + entropy)

    Aggregated like the policy loss (same ``scale``). ``coef=0`` is plain GRPO.

    Shape [N, T]; coef in loss units per nat.
    """

    about: ClassVar[About] = About(source="common practice; verl's actor", status="published")

    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: float = 0.001
    """Weight of the bonus; negative values punish entropy."""

    def __post_init__(self) -> None:
        require(
            abs(self.coef) < 100,
            "regularizer.entropy_bonus.coef",
            self.coef,
            "an entropy coefficient beyond 100 is surely a slip",
        )

    @property
    def active(self) -> bool:
        return self.coef != 0

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        return -self.coef * scale * terms.entropy
