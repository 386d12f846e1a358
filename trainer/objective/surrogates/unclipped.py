"""The policy gradient with importance ratios and no clipping. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclipped(Surrogate):
    """Advantage times importance ratio, whatever the ratio.

        loss = -advantages * ratio,      ratio = exp(clamp(logprobs - old_logprobs, -20, 20))

    Shape [N, T]; unit of the advantage.
    """

    about: ClassVar[About] = About(
        source=(
            'the surrogate of TRPO, arXiv 1502.05477, without its constraint; "Clip-Free" of arXiv 2511.05993 and '
            "the base of KL-Cov, arXiv 2505.22617"
        ),
        status="published",
    )

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        never = torch.zeros_like(batch.mask)
        loss = -batch.advantages * importance_ratio(terms.logprobs, batch.old_logprobs)
        return SurrogateLoss(loss=loss, clipped_low=never, clipped_high=never)
