"""CE-GPPO: clipped tokens keep a bounded gradient. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss
from trainer.objective.surrogates.ppo_clip import clipped_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class CEGPPO(Surrogate):
    """PPO's loss, and for tokens beyond the thresholds a share of the gradient that they have at the threshold.

        A < 0, ratio < 1 - clip_low:     d loss / d logprobs = -A beta_low (1 - clip_low)
        A > 0, ratio > 1 + clip_high:    d loss / d logprobs = -A beta_high (1 + clip_high)
        else                             that of PPO, dual clip included

    In value the loss is PPO's. ``beta_low = beta_high = 0`` is PPO bit for bit. Reported: what the lower side keeps
    lowers entropy, what the upper side keeps raises it. A clip fraction counts tokens whose gradient is gone: those of
    a side whose beta is 0.

    Shape [N, T]; ratio dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="CE-GPPO, arXiv 2509.20712; the authors' code and scripts (Kwai-Klear)",
        status="published",
        departures=(
            "the value of the loss is PPO's, where the authors' is beta times it: the gradient is theirs; beta_low is"
            " that of the 7B script (0.5 for 1.5B, 0.25 in an older one)"
        ),
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip_low", "clip_high", "dual_clip")
    neutral: ClassVar[dict[str, object] | None] = {"beta_low": 0.0, "beta_high": 0.0, "dual_clip": None}
    detached: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    beta_low: float = 0.75
    """Share of the gradient below the lower threshold (beta_1)."""
    beta_high: float = 1.0
    """Share of the gradient above the upper threshold (beta_2)."""
    clip_low: float = 0.2
    """Lower threshold on the ratio, for negative advantages."""
    clip_high: float = 0.2
    """Upper threshold on the ratio, for positive advantages."""
    dual_clip: float | None = 10.0
    """Bound (> 1) on the ratio for negative advantages; None: none."""

    def __post_init__(self) -> None:
        low, high, dual = self.clip_low, self.clip_high, self.dual_clip
        require(0 <= self.beta_low <= 1, "surrogate.beta_low", self.beta_low, "a share of the gradient is 0 to 1")
        require(0 <= self.beta_high <= 1, "surrogate.beta_high", self.beta_high, "a share of the gradient is 0 to 1")
        require(0 <= low <= 1, "surrogate.clip_low", low, "give a number from 0 to 1 (a ratio is positive)")
        require(high >= 0, "surrogate.clip_high", high, "give a number of at least 0")
        require(dual is None or dual > 1, "surrogate.dual_clip", dual, "give a number above 1, or null for none")

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        floor, ceiling = 1 - self.clip_low, 1 + self.clip_high
        ppo = clipped_loss(
            importance_ratio(terms.logprobs, batch.old_logprobs),
            batch,
            floor=floor,
            ceiling=ceiling,
            dual_clip=self.dual_clip,
        )
        slope = torch.zeros_like(terms.logprobs)
        slope = slope.masked_fill(ppo.clipped_low, self.beta_low * floor)
        slope = slope.masked_fill(ppo.clipped_high, self.beta_high * ceiling)
        # Value 0, gradient 1: what is added moves the gradient alone.
        kept = terms.logprobs - terms.logprobs.detach()
        return replace(
            ppo,
            loss=ppo.loss - batch.advantages * slope * kept,
            clipped_low=ppo.clipped_low & (self.beta_low == 0),
            clipped_high=ppo.clipped_high & (self.beta_high == 0),
        )
