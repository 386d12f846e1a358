"""Advantage reweighting: likely tokens count more than unlikely ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageReweighting(Weight):
    """A weight that rises with the probability at which a token was sampled.

        weight = alpha * p + 1 - alpha

    Gradients of unlikely tokens are the largest (their norm is bounded by a multiple of 1 - p) and drown the others.
    ``p`` is the sampler's. ``alpha=0`` is plain GRPO.

    Shape [N, T]; dimensionless.
    """

    about: ClassVar[About] = About(
        source='advantage reweighting of "Do Not Let Low-Probability Tokens Over-Dominate in RL for LLMs", arXiv '
        "2505.12929, from notes",
        status="published",
    )

    neutral: ClassVar[dict[str, object] | None] = {"alpha": 0.0}

    alpha: Annotated[float, Range(0, 1)] = 0.3
    """What a token of probability 0 loses: 0.2 to 0.3 on puzzles, 0.1 on mathematics."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        return self.alpha * batch.sampler_logprobs.exp() + (1 - self.alpha)
