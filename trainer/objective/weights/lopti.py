"""Lopti: updates on a rollout batch use its unlikely tokens first, then the likely ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Diagnostic, Weight

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Lopti(Weight):
    """Half of the updates on a rollout batch see its unlikely tokens, the other half, after them, the likely ones.

        weight = 1 where p <= threshold, else 0      in the first half of the step's updates
        weight = 1 where p > threshold, else 0       in the second half

    ``p`` is the probability at which the token was sampled. With two epochs both halves see every response. The
    denominator of the reduction counts all tokens. ``threshold=null`` is plain GRPO.

    Shape [N, T]; dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            'Lopti of "Do Not Let Low-Probability Tokens Over-Dominate in RL for LLMs", arXiv 2505.12929, from notes'
        ),
        status="reconstructed",
        departures=(
            "with several mini-batches all of them are passed over for unlikely tokens before any is for likely ones; "
            "the paper has the two updates of a mini-batch in a row"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"threshold": None}

    threshold: Annotated[float, Range(0, 1)] | None = 0.5
    """Probability up to which a token is unlikely (eta). None: all tokens in all updates."""

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if self.threshold is not None and run.optim.epochs % 2:
            odd = f"with optim.epochs={run.optim.epochs}"
            why = f"{odd} weight Lopti does not see every response for both kinds of tokens"
            yield Diagnostic(message=f"{why}: set optim.epochs=2, or another even number", fatal=False)

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        if self.threshold is None:
            return torch.ones_like(batch.sampler_logprobs)
        unlikely = batch.sampler_logprobs <= (math.log(self.threshold) if self.threshold else -torch.inf)
        first_half = 2 * context.update < context.num_updates
        return (unlikely if first_half else ~unlikely).to(batch.sampler_logprobs.dtype)
