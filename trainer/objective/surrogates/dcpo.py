"""DCPO: clip thresholds that widen for rare tokens. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss
from trainer.objective.surrogates.ppo_clip import clipped_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class DCPO(Surrogate):
    """PPO's loss with bounds on the ratio that depend on the probability q at which the token was sampled.

        low  = 1/2 + 1/2 sqrt(max(1 - 4 clip_low / q, 0))
        high = min(1/2 + 1/2 sqrt(1 + 4 clip_high / q), max_ratio)
        loss = max(-A ratio, -A clip(ratio, low, high))

    They are the largest ratios with ``|ratio (ratio - 1)| q <= clip``: what a token may move is measured by its
    probability. At q = 1 they are about PPO's, at q = 0.01 a token may grow fivefold.

    Shape [N, T]; bounds dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="DCPO (dynamic clipping), arXiv 2509.02333, and its code (0.2 and 0.28 in its script)",
        status="reconstructed",
        departures=(
            "the dynamic bounds alone, the paper's smoothed advantage is advantage=smoothed; 0.16 and 0.2 could not be "
            "checked against the paper"
        ),
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip_low", "clip_high", "max_ratio")

    clip_low: Annotated[float, Range(0, 1)] = 0.16
    """Width below (epsilon_low)."""
    clip_high: Annotated[float, Range(0)] = 0.2
    """Width above (epsilon_high)."""
    max_ratio: Annotated[float, Range(1)] = 10.0
    """Largest upper bound."""

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        low, high = self.bounds(batch.old_logprobs)
        ratio = importance_ratio(terms.logprobs, batch.old_logprobs)
        return clipped_loss(ratio, batch, floor=low, ceiling=high, dual_clip=None)

    def bounds(self, old_logprobs: Float[Tensor, "N T"]) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N T"]]:
        """Lower and upper bound on the ratio of each token."""
        rarity = (-old_logprobs).exp()
        low = 0.5 + 0.5 * (1 - 4 * self.clip_low * rarity).clamp(min=0).sqrt()
        high = 0.5 + 0.5 * (1 + 4 * self.clip_high * rarity).sqrt()
        return low, high.clamp(max=self.max_ratio)
