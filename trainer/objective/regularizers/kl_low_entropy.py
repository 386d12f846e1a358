"""Divergence from the initial model on tokens of low entropy. Row-local; called through the
``regularizer`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.estimators import MAX_K3, k3
from trainer.objective.base import Regularizer
from trainer.objective.selection import above_row_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class KLLowEntropy(Regularizer):
    """k3 estimate of KL(policy || initial model) on all but the entropic tokens, added to the loss.

        entropic = entropy > quantile of the response's entropies       current policy, detached
        term     = coef * scale * min(k3, 10) where not entropic, else 0

    Facts are held, reasoning is free to move. ``coef=0`` is plain GRPO; ``quantile=1`` is ``kl_reference``.

    Shape [N, T]; coef in loss units per nat.
    """

    about: ClassVar[About] = About(source="ArcherCodeR, arXiv 2507.15778, and its repository", status="released")

    needs_reference: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: Annotated[float, Range(0)] = 0.001
    """Weight of the divergence."""
    quantile: Annotated[float, Range(0, 1)] = 0.8
    """Tokens above this quantile of their response's entropies are free."""

    @property
    def active(self) -> bool:
        return self.coef != 0

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        assert batch.ref_logprobs is not None
        divergence = k3(batch.ref_logprobs - terms.logprobs).clamp(max=MAX_K3)
        entropic = above_row_quantile(terms.entropy, batch.mask, self.quantile)
        return self.coef * scale * divergence.masked_fill(entropic, 0.0)
