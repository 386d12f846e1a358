"""BAPO: clip bounds that are moved until positive tokens carry their share. Called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range, require
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Context, Surrogate, SurrogateLoss
from trainer.objective.surrogates.ppo_clip import clipped_loss

LOW, HIGH = "bapo_low", "bapo_high"
"""Columns of ``batch.extras`` [N]: the bounds of the mini-batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BAPO(Surrogate):
    """PPO's loss with bounds on the ratio that are searched anew in every mini-batch.

        positive = sum of A min(ratio, high) over A > 0;    negative = sum of -A max(ratio, low) over A < 0
        start at low_start and high_start; while positive / negative < balance:
            raise low by low_step up to low_end, and once it is there high by high_step up to high_end
        loss = max(-A ratio, -A clip(ratio, low, high))

    Sums over the mini-batch's tokens at the current policy. Equal starts and ends of 0.8 and 1.2 are GRPO bit for bit.
    Since a clipped negative token counts with its bound, raising ``low`` alone never raises the quotient: it takes
    gradient from negative tokens, and ``high`` then gives it back to positive ones.

    Shape [N, T]; bounds dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="BAPO (balanced policy optimisation with adaptive clipping), arXiv 2510.18927, and its code",
        status="released",
        departures=(
            "defaults of the code's YAML, but high_step, which is its script's (0.8 to 0.95, 1.2 to 2.0, balance 0.5)"
        ),
    )

    needs_current: ClassVar[bool] = True
    needs_old: ClassVar[bool] = True
    clip_settings: ClassVar[tuple[str, ...]] = ("low_start", "low_end", "high_start", "high_end")
    neutral: ClassVar[dict[str, object] | None] = {
        "low_start": 0.8,
        "low_end": 0.8,
        "high_start": 1.2,
        "high_end": 1.2,
    }

    low_start: Annotated[float, Range(0, 1)] = 0.6
    """Lower bound on the ratio to begin with."""
    low_end: Annotated[float, Range(0, 1)] = 0.8
    """Largest lower bound."""
    high_start: Annotated[float, Range(1)] = 1.2
    """Upper bound on the ratio to begin with."""
    high_end: Annotated[float, Range(1, 100)] = 2.0
    """Largest upper bound."""
    low_step: Annotated[float, Range(1e-3)] = 0.05
    """What the lower bound is raised by at a time."""
    high_step: Annotated[float, Range(1e-3)] = 0.1
    """What the upper bound is raised by at a time."""
    balance: Annotated[float, Range(0)] = 1.0
    """Wanted quotient of positive and negative contributions (rho)."""

    def __post_init__(self) -> None:
        for side in ("low", "high"):
            start, end = getattr(self, f"{side}_start"), getattr(self, f"{side}_end")
            require(start <= end, f"surrogate.{side}_start", start, f"give at most surrogate.{side}_end={end}")

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> dict[str, Tensor]:
        assert terms is not None and batch.advantages is not None and batch.old_logprobs is not None
        ratio = importance_ratio(terms.logprobs, batch.old_logprobs)[batch.mask]
        low, high = self.bounds(ratio.double(), batch.advantages[batch.mask].double())
        column = torch.ones(batch.num_rows, dtype=terms.logprobs.dtype)
        return {LOW: column * low, HIGH: column * high}

    def bounds(self, ratio: Float[Tensor, " M"], advantages: Float[Tensor, " M"]) -> tuple[float, float]:
        """Lower and upper bound for tokens with these ratios and advantages."""
        gain, loss = advantages.clamp(min=0), (-advantages).clamp(min=0)
        low, high = self.low_start, self.high_start
        while float(gain @ ratio.clamp(max=high)) < self.balance * float(loss @ ratio.clamp(min=low)):
            if low < self.low_end:
                low = min(low + self.low_step, self.low_end)
            elif high < self.high_end:
                high = min(high + self.high_step, self.high_end)
            else:
                break
        return low, high

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        ratio = importance_ratio(terms.logprobs, batch.old_logprobs)
        floor, ceiling = (batch.extras[name][:, None].expand_as(ratio) for name in (LOW, HIGH))
        return clipped_loss(ratio, batch, floor=floor, ceiling=ceiling, dual_clip=None)
