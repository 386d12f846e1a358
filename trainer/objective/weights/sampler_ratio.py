"""Importance correction for a sampler whose distribution differs slightly from the policy's. Called once per mini-batch
through the ``weight`` slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.estimators import bounded
from trainer.objective.base import Context, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerRatio(Weight):
    """The ratio of trainer to sampler at the weights that sampled, cut at two ends.

        d         = old_logprobs - sampler_logprobs
        token     rho = exp(d_t)
        sequence  rho = exp(sum_t d_t)             over the row's sampled tokens
        geometric rho = exp(mean_t d_t)            over the row's sampled tokens
        truncate  weight = clamp(rho, low, high)
        mask      weight = rho   where low <= rho <= high, else 0
        reject    weight = 1     where low <= rho <= high, else 0

    ``d`` is clamped to 20 either way, as in verl. The denominator of the reduction counts masked tokens too. Where
    sampler and trainer agree all weights are 1; ``truncate`` between 1 and 1 is plain GRPO.

    ==============  =========  ========  =====  =====
    choice          level      mode      low    high
    ==============  =========  ========  =====  =====
    tis             token      truncate  0      2
    tis_sequence    sequence   truncate  0      2
    mis             token      mask      0      2
    mis_sequence    sequence   mask      0      2
    icepop          token      mask      0.5    5
    geo_mask        geometric  reject    0.999  1.001
    ==============  =========  ========  =====  =====

    Shape [N, T]; dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            "truncated (TIS): Yao et al., Your Efficient RL Framework Secretly Brings You Off-Policy RL Training "
            "(2025); masked and sequence level (MIS): Liu et al., When Speed Kills Stability (2025); IcePop: Ring-1T, "
            "arXiv 2510.18855; rejection by geometric mean and the thresholds: verl's rollout correction"
        ),
        status="published",
        departures=(
            "masked tokens stay in the denominator, as published for IcePop; later code (slime, verl) takes them out; "
            "thresholds of TIS, MIS and the geometric mean are from memory, those of IcePop from a secondary source"
        ),
    )

    needs_old: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"mode": "truncate", "low": 1.0, "high": 1.0}

    level: Literal["token", "sequence", "geometric"] = "token"
    """Over what the ratio is taken."""
    mode: Literal["truncate", "mask", "reject"] = "truncate"
    """What happens beyond the ends."""
    low: Annotated[float, Range(0, 1)] = 0.0
    """Lower end of the ratio."""
    high: Annotated[float, Range(1, 1e6)] = 2.0
    """Upper end of the ratio (C)."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert batch.old_logprobs is not None
        zero = torch.zeros((), dtype=batch.old_logprobs.dtype, device=batch.old_logprobs.device)
        gap = torch.where(batch.mask, batch.old_logprobs - batch.sampler_logprobs, zero)
        ratio = bounded(self._over(gap, batch)).exp().expand_as(gap)
        if self.mode == "truncate":
            return ratio.clamp(self.low, self.high)
        kept = (ratio >= self.low) & (ratio <= self.high)
        return torch.where(kept, ratio if self.mode == "mask" else torch.ones_like(ratio), zero)

    def _over(self, gap: Float[Tensor, "N T"], batch: TokenBatch) -> Tensor:
        if self.level == "token":
            return gap
        total = gap.sum(dim=1, keepdim=True)
        return total if self.level == "sequence" else total / batch.mask.sum(dim=1, keepdim=True).clamp(min=1)
