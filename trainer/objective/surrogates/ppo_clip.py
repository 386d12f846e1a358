"""The clipped surrogate of PPO with separate thresholds and dual clip. Row-local; called through the ``surrogate``
slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss

Bound = Float[Tensor, "N T"] | float | None
"""Of a ratio: one for all tokens, one for each, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOClip(Surrogate):
    """Pessimistic minimum of the plain and the clipped policy gradient objective.

        ratio  = exp(clamp(logprobs - old_logprobs, -20, 20))
        loss   = max(-advantages * ratio, -advantages * clip(ratio, 1 - clip_low, 1 + clip_high))
        loss   = min(loss, -advantages * dual_clip)          where advantages < 0 and dual_clip is set

    The gradient is exactly 0 where (A > 0 and ratio > 1 + clip_high), (A < 0 and ratio < 1 - clip_low),
    (A < 0 and ratio > dual_clip) or A = 0; each of the first three has a clip fraction of its own. ``clip_low =
    clip_high = None`` removes clipping ("clip-free").

    Shapes [N, T]; ratio dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source=("PPO, arXiv 1707.06347; separate thresholds from DAPO, arXiv 2503.14476; dual clip, arXiv 1912.09729"),
        status="published",
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip_low", "clip_high", "dual_clip")
    neutral: ClassVar[dict[str, object] | None] = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None}

    clip_low: float | None = 0.2
    """Lower threshold: ratios below 1 - clip_low lose their gradient when the advantage is negative. None: never."""
    clip_high: float | None = 0.2
    """Upper threshold: ratios above 1 + clip_high lose their gradient when the advantage is positive. None: never."""
    dual_clip: float | None = None
    """Bound (> 1) on the ratio for negative advantages; None: none. verl's default is 3, DAPO's scripts use 10."""

    def __post_init__(self) -> None:
        low, high, dual = self.clip_low, self.clip_high, self.dual_clip
        require(
            low is None or 0 <= low <= 1,
            "surrogate.clip_low",
            low,
            "give a number from 0 to 1 (a ratio is positive), or null",
        )
        require(high is None or high >= 0, "surrogate.clip_high", high, "give a number of at least 0, or null for none")
        require(dual is None or dual > 1, "surrogate.dual_clip", dual, "give a number above 1, or null for none")

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        return clipped_loss(
            importance_ratio(terms.logprobs, batch.old_logprobs),
            batch,
            floor=None if self.clip_low is None else 1 - self.clip_low,
            ceiling=None if self.clip_high is None else 1 + self.clip_high,
            dual_clip=self.dual_clip,
        )


def clipped_loss(
    ratio: Float[Tensor, "N T"], batch: ScoredBatch, *, floor: Bound, ceiling: Bound, dual_clip: float | None
) -> SurrogateLoss:
    """The loss of :class:`PPOClip` with the ratio kept within [``floor``, ``ceiling``]: numbers, or one of each for
    every token [N, T] (both then); None for no bound. Dimensionless bounds."""
    advantages = batch.advantages
    plain = -advantages * ratio
    if floor is None and ceiling is None:
        loss = plain
    else:
        # At a tie maximum() halves the gradient between two equal branches, so ratio 1 is plain policy gradient.
        loss = torch.maximum(plain, -advantages * ratio.clamp(min=floor, max=ceiling))  # type: ignore[arg-type]
    dual = None
    if dual_clip is not None:
        bound = -advantages * dual_clip
        dual = batch.mask & (advantages < 0) & (bound < loss)
        loss = torch.where(dual, bound, loss)
    with torch.no_grad():
        low = (advantages < 0) & (ratio < floor) if floor is not None else torch.zeros_like(batch.mask)
        high = (advantages > 0) & (ratio > ceiling) if ceiling is not None else torch.zeros_like(batch.mask)
    return SurrogateLoss(loss=loss, clipped_low=low & batch.mask, clipped_high=high & batch.mask, clipped_dual=dual)
