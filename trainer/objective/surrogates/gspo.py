"""GSPO: one importance ratio per response, clipped as a whole. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Surrogate, SurrogateLoss

MAX_LOG_RATIO = 10.0
"""Upper clamp of a sequence's log-ratio, as in verl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GSPO(Surrogate):
    """Every token carries the geometric mean ratio of its response, and the gradient of its own log-prob.

        log_s      = mean over the response's tokens of (logprobs - old_logprobs)
        ratio      = exp(clamp(sg[log_s] + (logprobs - sg[logprobs]), max=10))
        loss       = max(-advantages * ratio, -advantages * clip(ratio, 1 - clip_low, 1 + clip_high))

    ``sg`` stops the gradient: in value every ratio of a response equals ``s``, so a response is clipped as a whole.
    With the mean per response the gradient is ``-s A / |o|`` times that of the summed log-probs, which is also the
    gradient of the value; with one update per rollout it is that of GRPO with ``reduction=sequence_mean``.

    Shape [N, T]; ratio dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(source="GSPO, arXiv 2507.18071; verl's compute_policy_loss_gspo", status="published")

    clip_settings: ClassVar[tuple[str, ...]] = ("clip_low", "clip_high")
    forced_reduction: ClassVar[str | None] = "SequenceMean"

    clip_low: float = 3e-4
    """Lower threshold on the ratio of a whole response."""
    clip_high: float = 4e-4
    """Upper threshold on it."""

    def __post_init__(self) -> None:
        low, high = self.clip_low, self.clip_high
        require(0 <= low <= 1, "surrogate.clip_low", low, "give a number from 0 to 1 (a ratio is positive)")
        require(high >= 0, "surrogate.clip_high", high, "give a number of at least 0")

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        advantages, zero = batch.advantages, torch.zeros((), device=batch.mask.device)
        with torch.no_grad():
            moved = torch.where(batch.mask, terms.logprobs - batch.old_logprobs, zero)
            log_s = moved.sum(dim=1, keepdim=True) / batch.mask.sum(dim=1, keepdim=True).clamp(min=1)
        ratio = (log_s + (terms.logprobs - terms.logprobs.detach())).clamp(max=MAX_LOG_RATIO).exp()
        clipped = ratio.clamp(min=1 - self.clip_low, max=1 + self.clip_high)
        loss = torch.maximum(-advantages * ratio, -advantages * clipped)
        with torch.no_grad():
            low = (advantages < 0) & (ratio < 1 - self.clip_low)
            high = (advantages > 0) & (ratio > 1 + self.clip_high)
        return SurrogateLoss(loss=loss, clipped_low=low & batch.mask, clipped_high=high & batch.mask)
