"""Rand-Pos-Clip: a few random tokens of positive advantage lose their gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Weight
from trainer.objective.selection import num_selected, random_subset


@dataclass(frozen=True, slots=True, kw_only=True)
class RandPosClip(Weight):
    """A random few of the tokens of positive advantage get no gradient: Clip-Cov without the covariance.

        drawn  = max(1, floor(frac * num_positive)) of the tokens with advantages > 0, uniformly
        weight = 0 where drawn, else 1

    The denominator of the reduction is not re-weighted. ``frac=0`` is plain GRPO, ``frac=1`` trains on A <= 0 only.

    Shape [N, T]; dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            '"Revisiting Entropy in RL for Large Reasoning Models", arXiv 2511.05993, read through secondary notes;'
            " the fraction was not recovered"
        ),
        status="reconstructed",
        departures="the fraction is assumed: Clip-Cov's, of the positive tokens",
    )

    neutral: ClassVar[dict[str, object] | None] = {"frac": 0.0}

    frac: float = 2e-4
    """Share of the mini-batch's tokens of positive advantage that is drawn."""

    def __post_init__(self) -> None:
        require(0 <= self.frac <= 1, "weight.rand_pos_clip.frac", self.frac, "a share of tokens lies between 0 and 1")

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert batch.advantages is not None
        positive = batch.mask & (batch.advantages > 0)
        out = random_subset(positive, num_selected(self.frac, int(positive.sum())), context.generator("rand_pos_clip"))
        return torch.ones_like(batch.sampler_logprobs).masked_fill(out, 0.0)
