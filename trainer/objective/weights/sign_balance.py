"""Weights of positive and negative advantages that move against each other."""

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
class SignBalance(Weight):
    """What positive advantages gain, negative ones lose.

        weight = 1 + alpha where advantages > 0;  1 - alpha where advantages < 0;  1 where advantages = 0

    ``alpha=0`` is plain GRPO bit for bit, 1 positives only (at twice the weight), -1 negatives only.

    Shape [N, T]; dimensionless.
    """

    about: ClassVar[About] = About(
        source="EntroPIC, arXiv 2511.15248, read through a re-implementation and its project page",
        status="reconstructed",
        departures=(
            "acts on all tokens, as the re-implementation does; the paper spares unlikely tokens of negative "
            "advantage and of the positive ones takes the likely, by a threshold that could not be recovered"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"alpha": 0.0}

    alpha: float = 0.0
    """Weight that positive advantages gain and negative ones lose; usually set by controller entropic."""

    def __post_init__(self) -> None:
        require(-1 <= self.alpha <= 1, "weight.sign_balance.alpha", self.alpha, "give a number from -1 to 1")

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert batch.advantages is not None
        return 1 + self.alpha * torch.sign(batch.advantages)
