"""Clip-Cov: a few tokens of high covariance lose their gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Weight
from trainer.objective.selection import masked_covariance, num_selected, random_subset


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCov(Weight):
    """A random few of the tokens whose covariance lies in a band get no gradient.

        cov      = (logprobs - mean logprobs) (advantages - mean advantages)       over the mini-batch
        eligible = cov_low < cov < cov_high, and not clipped by the surrogate already
        drawn    = max(1, floor(frac * num_tokens)) of the eligible, uniformly; all of them where there are fewer
        weight   = 0 where drawn, else 1

    The denominator of the reduction is not re-weighted. ``frac=0`` is plain GRPO.

    Shape [N, T]; dimensionless, cov in nats times units of the advantage.
    """

    about: ClassVar[About] = About(
        source=(
            "\"The Entropy Mechanism\", arXiv 2505.22617, section 4; the authors' and verl's "
            "compute_policy_loss_clip_cov: the paper detaches the drawn tokens, the code multiplies their loss by "
            "0, one gradient; the authors' scripts widen the clip of the surrogate to [0, 2] "
            "(method=clip_cov_released)"
        ),
        status="published",
        departures="covariance and draw over the mini-batch instead of a micro-batch; frac=0 draws nothing",
    )

    needs_current: ClassVar[bool] = True
    needs_old: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"frac": 0.0}

    frac: float = 2e-4
    """Share of the mini-batch's tokens that is drawn."""
    cov_low: float = 1.0
    """Lower end of the band (omega_low), exclusive; far above the mean covariance."""
    cov_high: float = 5.0
    """Upper end of the band (omega_high), exclusive."""

    def __post_init__(self) -> None:
        require(0 <= self.frac <= 1, "weight.clip_cov.frac", self.frac, "a share of tokens lies between 0 and 1")
        require(
            self.cov_low < self.cov_high,
            "weight.clip_cov.cov_low",
            self.cov_low,
            f"the band is empty; give less than weight.clip_cov.cov_high={self.cov_high}",
        )

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert batch.advantages is not None and terms is not None
        cov = masked_covariance(terms.logprobs, batch.advantages, batch.mask)
        eligible = batch.mask & (cov > self.cov_low) & (cov < self.cov_high)
        if context.surrogate.clip_settings:
            policy = context.surrogate(terms, ScoredBatch.of(batch))
            eligible &= ~policy.clipped
        out = random_subset(eligible, num_selected(self.frac, batch.num_tokens), context.generator("clip_cov"))
        return torch.ones_like(batch.sampler_logprobs).masked_fill(out, 0.0)
