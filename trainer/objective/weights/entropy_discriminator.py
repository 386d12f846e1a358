"""Clip_B and Clip_V: tokens whose update would lower the entropy by more than is usual lose their gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Diagnostic, Weight
from trainer.objective.selection import largest, num_selected

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings

TINY = 1e-12
"""A spread below this is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyDiscriminator(Weight):
    """A filter on the exact first-order law of entropy change, at the weights that sampled.

        S = p (log p + H)                     of the sampled token
        E = sum_a p_a^2 (log p_a + H)         a step of size a along A grad log p moves H by -a A (S - E) + O(a^2)
        batch        excess = S - mean S                       (Clip_B)
        vocabulary   excess = S - E                            (Clip_V)
        dropped      -excess > mu std(excess) where A < 0;   with sides=both also excess > mu std(excess) where A > 0
        weight       num_tokens / num_kept where kept (1 without renormalise), 0 where dropped

    Mean and population standard deviation run over the mini-batch's tokens. Of the tokens that qualify at most
    ``max_frac`` of all are dropped, those farthest out. Nothing is dropped where the spread is below 1e-12;
    ``max_frac=0`` is plain GRPO. Renormalised, ``reduction=token_mean`` is the mean over the kept tokens, as if the
    dropped ones were masked.

    Shape [N, T]; weight dimensionless, S and E in nats.
    """

    about: ClassVar[About] = About(
        source=(
            '"On the Entropy Dynamics in RFT", arXiv 2602.03392; its filters in agentscope-ai/Trinity-RFT'
            " (examples/entropy; the code has the negative side only, the paper speaks of both: sides)"
        ),
        status="reconstructed",
        departures=(
            "statistics over the mini-batch instead of the rollout batch: the same with one update per rollout; how the"
            " code fills its baseline E was not seen, sum_a p_a^2 (log p_a + H) is our reading of the law; the positive"
            " side mirrors the negative one"
        ),
    )

    needs_old: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"max_frac": 0.0}

    baseline: Literal["batch", "vocabulary"] = "batch"
    """What S is held against: its mean over tokens (Clip_B), or its expectation over the vocabulary (Clip_V)."""
    mu: Annotated[float, Range(0)] = 2.5
    """Standard deviations beyond which a token is dropped: 2.5 for Clip_B, 8.5 for Clip_V."""
    max_frac: Annotated[float, Range(0, 1)] = 1.0
    """Largest share of the mini-batch's tokens that is dropped; Clip_V has 1e-4."""
    sides: Literal["negative", "both"] = "negative"
    """Whose tokens may be dropped: of negative advantage only (released code), or of either (paper)."""
    renormalise: bool = True
    """Divide by the kept tokens instead of all."""

    @property
    def old_statistics(self) -> frozenset[str]:
        # The collision probability comes out of the same sums, and makes policy/renyi2_entropy.
        return frozenset({"sum_p2", "sum_p2_logp_h"} if self.baseline == "vocabulary" else ())

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        reduction = type(run.objective.reduction).__name__
        if self.renormalise and reduction != "TokenMean":
            why = (
                f"weight EntropyDiscriminator divides by the tokens that it keeps, which reduction {reduction} does not"
            )
            yield Diagnostic(message=f"{why}: set renormalise=false, or choose reduction=token_mean", fatal=False)

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        out = self.dropped(batch)
        kept = batch.num_tokens - int(out.sum())
        factor = batch.num_tokens / kept if self.renormalise and kept else 1.0
        return torch.full_like(batch.sampler_logprobs, factor).masked_fill(out, 0.0)

    def dropped(self, batch: TokenBatch) -> Tensor:
        """Tokens without gradient [N, T]."""
        assert batch.advantages is not None and batch.old_logprobs is not None and batch.old_entropy is not None
        mask = batch.mask
        excess = (batch.old_logprobs.exp() * (batch.old_logprobs + batch.old_entropy)).double()
        if self.baseline == "vocabulary":
            excess = excess - batch.extras["old_sum_p2_logp_h"].double()
        values = excess[mask]
        spread = float(values.std(correction=0)) if values.numel() else 0.0
        if spread < TINY:
            return torch.zeros_like(mask)
        sided = (excess if self.baseline == "vocabulary" else excess - values.mean()) * batch.advantages.sign()
        selected = mask & (sided > self.mu * spread)
        if self.sides == "negative":
            selected = selected & (batch.advantages < 0)
        return largest(sided, selected, num_selected(self.max_frac, batch.num_tokens))
