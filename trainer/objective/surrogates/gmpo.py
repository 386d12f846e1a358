"""GMPO: the geometric mean of a response's clipped ratios. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import bounded
from trainer.objective.base import Surrogate, SurrogateLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class GMPO(Surrogate):
    """One ratio per response: the geometric mean of its tokens' ratios, each clipped in the log before the mean.

        gap   = clamp(logprobs - old_logprobs, -20, 20)
        kept  = min(gap, clip_high) where advantages > 0;  max(gap, -clip_low) where advantages < 0
        ratio = exp(mean of kept over the response's tokens)
        loss  = -advantages * ratio                                  the same for every token of the response

    With the mean per response the loss of a response is ``-A ratio``, and its gradient that of the value; a token
    beyond its threshold gets none, and still counts in the mean. Each token carries the gradient of its own log-prob,
    so that weights act on tokens. With one update per rollout it is GRPO with ``reduction=sequence_mean``.

    Shape [N, T]; thresholds in nats, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="GMPO, arXiv 2507.20673; TRL's experimental trainer and verl's geo_mean", status="published"
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip_low", "clip_high")
    forced_reduction: ClassVar[str | None] = "SequenceMean"

    clip_low: float = 0.4
    """Lower threshold on the log-ratio, nats, for negative advantages."""
    clip_high: float = 0.4
    """Upper threshold on the log-ratio, nats, for positive advantages."""

    def __post_init__(self) -> None:
        require(self.clip_low >= 0, "surrogate.clip_low", self.clip_low, "give a number of nats, at least 0")
        require(self.clip_high >= 0, "surrogate.clip_high", self.clip_high, "give a number of nats, at least 0")

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        advantages = batch.advantages
        gap = bounded(terms.logprobs - batch.old_logprobs)
        high = batch.mask & (advantages > 0) & (gap > self.clip_high)
        low = batch.mask & (advantages < 0) & (gap < -self.clip_low)
        kept = gap.masked_fill(high, self.clip_high).masked_fill(low, -self.clip_low)
        with torch.no_grad():
            total = kept.masked_fill(~batch.mask, 0.0).sum(dim=1, keepdim=True)
            mean = total / batch.mask.sum(dim=1, keepdim=True).clamp(min=1)
        ratio = (mean + (kept - kept.detach())).exp()
        return SurrogateLoss(loss=-advantages * ratio, clipped_low=low, clipped_high=high)
