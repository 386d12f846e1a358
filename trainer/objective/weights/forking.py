"""Forking tokens (80/20): only the most uncertain tokens are trained on."""

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
from trainer.objective.selection import quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Forking(Weight):
    """Tokens whose entropy reaches the (1 - frac)-quantile of the mini-batch keep their gradient, the others lose it.

        threshold = quantile(entropy over the mini-batch's tokens, 1 - frac)
        kept      = entropy >= threshold
        weight    = num_tokens / num_kept where kept (1 without renormalise), else 0

    Renormalised, ``reduction=token_mean`` is the mean over the kept tokens. The quantile is interpolated linearly, so
    of ten different entropies ``frac=0.2`` keeps the two largest; equal ones are all kept. ``frac=1`` is plain GRPO.

    Shape [N, T]; dimensionless, entropy in nats.
    """

    about: ClassVar[About] = About(
        source=(
            '"Beyond the 80/20 Rule", arXiv 2506.01939; TRL leaves the normaliser alone (renormalise=false), so its'
            " loss is about 1 / frac times smaller"
        ),
        status="published",
        departures="the quantile is that of the mini-batch, as published, where released code takes a micro-batch's",
        released={"renormalise": False},
    )

    needs_current: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"frac": 1.0}

    frac: float = 0.2
    """Share of tokens that are trained on (rho)."""
    renormalise: bool = True
    """Divide by the kept tokens instead of all."""

    def __post_init__(self) -> None:
        require(0 < self.frac <= 1, "weight.forking.frac", self.frac, "give a share above 0 and up to 1, which is all")

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert terms is not None
        if not bool(batch.mask.any()):
            return torch.ones_like(terms.entropy)
        kept = batch.mask & (terms.entropy >= quantile(terms.entropy[batch.mask], 1 - self.frac))
        factor = batch.num_tokens / int(kept.sum()) if self.renormalise else 1.0
        return kept.to(terms.entropy.dtype) * factor
