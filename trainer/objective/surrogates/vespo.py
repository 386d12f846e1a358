"""VESPO: a bell-shaped function of the response's importance weight replaces that weight. Row-local; called through the
``surrogate`` slot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.estimators import bounded
from trainer.objective.base import Surrogate, SurrogateLoss

LOG_WEIGHT = (math.log(1e-8), 20.0)
"""Ends of a response's log weight, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VESPO(Surrogate):
    """Every token of a response carries one smooth function of the response's importance weight.

        log w = clamp(sum over the response of clamp(logprobs - old_logprobs, -20, 20), log 1e-8, 20)
        phi   = exp(lambda + k log w - lambda w)                 detached; phi(1) = 1, and it falls off on both sides
        d loss / d logprobs = -A phi;     value -A phi
        k, lambda = k_positive, lambda_positive where A >= 0, else k_negative, lambda_negative

    With one update per rollout its gradient is that of GRPO.

    Shape [N, T]; w and phi dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="VESPO, arXiv 2602.10693; as in TRL",
        status="published",
        departures="the value of the loss is that of the weights, not of the log-probs: one gradient",
    )

    detached: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    k_positive: Annotated[float, Range(0)] = 2.0
    """Power of w for advantages of at least 0."""
    lambda_positive: Annotated[float, Range(0)] = 3.0
    """Rate of the decay in w for advantages of at least 0."""
    k_negative: Annotated[float, Range(0)] = 3.0
    """Power of w for negative advantages."""
    lambda_negative: Annotated[float, Range(0)] = 2.0
    """Rate of the decay in w for negative advantages."""

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        with torch.no_grad():
            moved = bounded(terms.logprobs - batch.old_logprobs).masked_fill(~batch.mask, 0.0)
            log_w = moved.sum(dim=1, keepdim=True).clamp(*LOG_WEIGHT)
            positive = (self.lambda_positive * (1 - log_w.exp()) + self.k_positive * log_w).exp()
            negative = (self.lambda_negative * (1 - log_w.exp()) + self.k_negative * log_w).exp()
            phi = torch.where(batch.advantages >= 0, positive, negative)
        moving = terms.logprobs - terms.logprobs.detach()
        never = torch.zeros_like(batch.mask)
        return SurrogateLoss(loss=-batch.advantages * phi * (1 + moving), clipped_low=never, clipped_high=never)
