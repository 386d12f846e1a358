"""SAPO: a sigmoid of the ratio instead of a clip. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class SAPO(Surrogate):
    """The ratio passes a sigmoid whose slope is 1 at ratio 1 and falls off smoothly on both sides.

        loss = -advantages * (4 / tau) * sigmoid(tau * (ratio - 1))
        tau  = tau_positive where advantages > 0, else tau_negative

    Nothing is clipped, so the clip fractions stay 0. With one update per rollout its gradient is that of GRPO.

    Shape [N, T]; ratio and tau dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(source="SAPO, arXiv 2511.20347; as in TRL, verl and SkyRL", status="published")

    tau_positive: float = 1.0
    """Steepness for positive advantages: the larger, the sooner a moved token counts nothing."""
    tau_negative: float = 1.05
    """Steepness for the others."""

    def __post_init__(self) -> None:
        for name in ("tau_positive", "tau_negative"):
            require(getattr(self, name) > 0, f"surrogate.{name}", getattr(self, name), "a temperature is above 0")

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        ratio = importance_ratio(terms.logprobs, batch.old_logprobs)
        tau = torch.full_like(ratio, self.tau_negative).masked_fill(batch.advantages > 0, self.tau_positive)
        loss = -batch.advantages * (4 / tau) * torch.sigmoid(tau * (ratio - 1))
        never = torch.zeros_like(batch.mask)
        return SurrogateLoss(loss=loss, clipped_low=never, clipped_high=never)
