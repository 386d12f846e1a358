"""ASPO: positive tokens are weighted by the inverse ratio. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss
from trainer.objective.selection import above_row_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class ASPO(Surrogate):
    """A positive token that has become rarer gets a larger gradient, a likelier one a smaller: PPO's ratio, inverted.

        A > 0:  weight = min(1 / ratio, max_weight);   no gradient where ratio > 1 + eps
        A < 0:  weight = min(ratio, max_weight);       no gradient where ratio < 1 - eps
        d loss / d logprobs = -A weight;               value -A weight
        eps = clip_entropic where the entropy exceeds the quantile of the response's entropies, else clip

    Entropies are the current policy's, detached. Beyond ``max_weight`` a token keeps a bounded gradient, where a dual
    clip would leave none. With one update per rollout its gradient is that of GRPO.

    Shape [N, T]; ratio dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="ASPO (asymmetric importance sampling), arXiv 2510.06062, and its code",
        status="released",
        departures="a loss whose value is that of the weights, not of the log-probs: one gradient",
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip", "clip_entropic", "max_weight")
    detached: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    quantile: Annotated[float, Range(0, 1)] = 0.8
    """Tokens above this quantile of their response's entropies are entropic."""
    clip: Annotated[float, Range(0, 1)] = 0.2
    """Threshold on the distance of the ratio from 1, both sides."""
    clip_entropic: Annotated[float, Range(0, 1)] = 0.5
    """The same for entropic tokens."""
    max_weight: Annotated[float, Range(1)] = 3.0
    """Upper bound on the weight."""

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        advantages = batch.advantages
        with torch.no_grad():
            ratio = importance_ratio(terms.logprobs, batch.old_logprobs)
            entropic = above_row_quantile(terms.entropy, batch.mask, self.quantile)
            eps = torch.full_like(ratio, self.clip).masked_fill(entropic, self.clip_entropic)
            high = batch.mask & (advantages > 0) & (ratio > 1 + eps)
            low = batch.mask & (advantages < 0) & (ratio < 1 - eps)
            weight = torch.where(advantages > 0, 1 / ratio, ratio).clamp(max=self.max_weight)
        moving = (terms.logprobs - terms.logprobs.detach()).masked_fill(low | high, 0.0)
        return SurrogateLoss(loss=-advantages * weight * (1 + moving), clipped_low=low, clipped_high=high)
