"""TOPR: no ratio for positive advantages, a bounded one for negative ones. Row-local; called through the ``surrogate``
slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class TOPR(Surrogate):
    """Positive tokens are learned as they are, negative ones pushed away as long as the policy still produces them.

        A > 0:  loss = -positive * A * logprobs
        A < 0:  loss = -negative * A * sg[min(ratio, 1)] * logprobs

    Nothing is clipped: a negative token's gradient fades with its ratio. Its gradient is the loss's meaning, its value
    has none. With one update per rollout it is GRPO.

    Shape [N, T]; ratio dimensionless, loss in units of the advantage times nats.
    """

    about: ClassVar[About] = About(
        source="TOPR, tapered off-policy REINFORCE, arXiv 2503.14286; as in ROLL",
        status="reconstructed",
        departures=(
            "the ratio is that of the token, read so in notes on ROLL; whether the paper truncates that of the whole"
            " response was not settled"
        ),
    )

    detached: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    positive: Annotated[float, Range(0)] = 1.0
    """Weight of tokens of positive advantage."""
    negative: Annotated[float, Range(0)] = 1.0
    """Weight of tokens of negative advantage."""

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        taper = self.negative * importance_ratio(terms.logprobs.detach(), batch.old_logprobs).clamp(max=1.0)
        weight = taper.masked_fill(batch.advantages > 0, self.positive)
        never = torch.zeros_like(batch.mask)
        return SurrogateLoss(loss=-batch.advantages * weight * terms.logprobs, clipped_low=never, clipped_high=never)
