"""Weights of positive and negative advantages."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign(Weight):
    """One factor for tokens of positive advantage, one for the rest of them.

        weight = positive where advantages > 0;  negative where advantages < 0;  1 where advantages = 0

    ``positive=1, negative=1`` is plain GRPO bit for bit; ``positive=0`` trains on mistakes only (loss on A <= 0),
    ``negative=0`` on successes only. The denominator of the reduction is not re-weighted.

    Shape [N, T]; dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            '"Revisiting Entropy in RL for Large Reasoning Models", arXiv 2511.05993, section on positive-advantage'
            " reweighting, read through secondary notes"
        ),
        status="published",
        departures="a weight for negative advantages is added",
    )

    neutral: ClassVar[dict[str, object] | None] = {"positive": 1.0, "negative": 1.0}

    positive: float = 1.0
    """Factor on tokens of positive advantage (lambda_+)."""
    negative: float = 1.0
    """Factor on tokens of negative advantage (lambda_-)."""

    def __post_init__(self) -> None:
        require(self.positive >= 0, "weight.sign.positive", self.positive, "a weight is at least 0")
        require(self.negative >= 0, "weight.sign.negative", self.negative, "a weight is at least 0")

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert batch.advantages is not None
        weight = torch.ones_like(batch.advantages)
        weight = torch.where(batch.advantages > 0, self.positive, weight)
        return torch.where(batch.advantages < 0, self.negative, weight)
