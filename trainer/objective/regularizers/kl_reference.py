"""Divergence from the initial model as a term of the loss. Row-local; called through the ``regularizer`` slot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import MAX_K3, k1, k2, k3
from trainer.objective.base import Diagnostic, Regularizer

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class KLReference(Regularizer):
    """Estimate of KL(policy || initial model) on the sampled tokens, added to the loss.

        d    = ref_logprobs - logprobs
        k1   = -d;     k2 = d^2 / 2;     k3 = min(exp(d') - d' - 1, 10),   d' = clamp(d, -20, 20)
        term = coef * scale * k

    Aggregated like the policy loss (same ``scale``). Gradients per token: k1 1, k2 -d, k3 1 - exp(d), each times
    the gradient of ``logprobs``; k3 has none where it is clamped, k1 and k2 are never clamped. ``coef=0`` is plain
    GRPO.

    Shape [N, T]; coef in loss units per nat.
    """

    about: ClassVar[About] = About(
        source="DeepSeekMath, arXiv 2402.03300 (k3); estimators and the clamps of k3 as in verl's kl_penalty_forward",
        status="published",
    )

    needs_reference: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: float = 0.001
    """Weight of the divergence; 0.001 to 0.04 in published recipes."""
    estimator: Literal["k1", "k2", "k3"] = "k3"

    def __post_init__(self) -> None:
        require(self.coef >= 0, "regularizer.kl_reference.coef", self.coef, "a weight is at least 0")

    @property
    def active(self) -> bool:
        return self.coef != 0

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if self.estimator == "k1" and self.coef:
            why = "k1 as a term of the loss has an expected gradient of 0: set regularizer.kl_reference.estimator=k3"
            yield Diagnostic(message=why, fatal=False)

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        assert batch.ref_logprobs is not None
        d = batch.ref_logprobs - terms.logprobs
        estimate = {"k1": k1, "k2": k2, "k3": k3}[self.estimator](d)
        return self.coef * scale * (estimate.clamp(max=MAX_K3) if self.estimator == "k3" else estimate)
