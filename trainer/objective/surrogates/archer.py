"""Archer: wider clip thresholds at tokens of high entropy. Row-local; called through the ``surrogate`` slot."""

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
from trainer.objective.surrogates.ppo_clip import clipped_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Archer(Surrogate):
    """PPO's loss with one pair of thresholds for the entropic tokens of a response, another for the rest.

        entropic = entropy > quantile of the response's entropies       current policy, detached
        eps      = clip_entropic where entropic, else clip
        loss     = max(-advantages * ratio, -advantages * clip(ratio, 1 - eps, 1 + eps))

    ``clip_entropic = clip = 0.2`` is GRPO bit for bit. The method's other half is a divergence from the initial model
    on the other tokens, ``regularizer=[kl_low_entropy]`` (the preset has both).

    Shape [N, T]; ratio dimensionless, entropy in nats, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="ArcherCodeR, arXiv 2507.15778, and its repository (clip_entropic 0.4 in its version 2.0)",
        status="released",
        departures="none known; the code's high_entropy_mask is true on low-entropy tokens, as is meant",
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip", "clip_entropic")
    neutral: ClassVar[dict[str, object] | None] = {"clip": 0.2, "clip_entropic": 0.2}

    quantile: Annotated[float, Range(0, 1)] = 0.8
    """Tokens above this quantile of their response's entropies are entropic."""
    clip: Annotated[float, Range(0, 1)] = 0.2
    """Threshold on the distance of the ratio from 1, both sides."""
    clip_entropic: Annotated[float, Range(0, 1)] = 0.5
    """The same for entropic tokens."""

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        ratio = importance_ratio(terms.logprobs, batch.old_logprobs)
        entropic = above_row_quantile(terms.entropy, batch.mask, self.quantile)
        floor = torch.full_like(ratio, 1 - self.clip).masked_fill(entropic, 1 - self.clip_entropic)
        ceiling = torch.full_like(ratio, 1 + self.clip).masked_fill(entropic, 1 + self.clip_entropic)
        return clipped_loss(ratio, batch, floor=floor, ceiling=ceiling, dual_clip=None)
