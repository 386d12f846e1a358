"""Delightful policy gradients: rare failures lose their weight, rare successes keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Delightful(Weight):
    """A gate on advantage times surprisal.

        weight = sigmoid(-advantage * logprob / temperature)

    The log-prob is the sampler's, held to the trainer's by the consistency check of every step. A token of probability
    1 has weight 1/2 whatever its advantage. ``temperature=null`` is plain GRPO.

    Shape [N, T]; dimensionless; temperature in nats times units of the advantage.
    """

    about: ClassVar[About] = About(
        source="Delightful Policy Gradient, arXiv 2603.14608, read through several re-implementations that agree",
        status="reconstructed",
        departures="one re-implementation doubles the weight, which is a factor on the learning rate of plain descent",
    )

    neutral: ClassVar[dict[str, object] | None] = {"temperature": None}

    temperature: Annotated[float, Range(1e-6)] | None = 1.0
    """How hard the gate is (eta); small: 0 or 1. None: no gate."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert batch.advantages is not None
        if self.temperature is None:
            return torch.ones_like(batch.sampler_logprobs)
        return torch.sigmoid(-batch.advantages * batch.sampler_logprobs / self.temperature)
