"""ERC: tokens whose entropy has moved since sampling lose their gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Diagnostic, Weight

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings

TINY = 1e-8
"""Added to both entropies, nats: a token that was certain and still is has not moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ERC(Weight):
    """A trust region on the ratio of full-vocabulary entropies instead of the sampled token's probabilities.

        moved  = (H + 1e-8) / (H_old + 1e-8)
        weight = 1 where low < moved < high, else 0

    ``H`` is the current policy's, ``H_old`` the sampling policy's. The denominator of the reduction is not re-weighted.
    In the first update of a rollout batch nothing has moved. ``low=0, high=null`` is plain GRPO.

    Shape [N, T]; dimensionless, entropies in nats.
    """

    about: ClassVar[About] = About(
        source="ERC, entropy ratio clipping, arXiv 2512.05591; the authors' code and scripts (Kwai-Klear)",
        status="published",
        departures="none known; the masked share is policy/weight_zero_frac",
    )

    needs_current: ClassVar[bool] = True
    needs_old: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"low": 0.0, "high": None}

    low: Annotated[float, Range(0, 1)] = 0.95
    """Ratios up to this lose their gradient."""
    high: Annotated[float, Range(1)] | None = 1.05
    """Ratios from this on lose their gradient. None: never."""

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if run.optim.num_updates == 1:
            yield Diagnostic(
                message="with optim.updates_per_rollout=1 no entropy has moved when weight ERC looks at it, so it does"
                " nothing: set optim.updates_per_rollout=2 or more",
                fatal=False,
            )

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert terms is not None and batch.old_entropy is not None
        # An entropy of 0 may come out a hair below 0.
        moved = (terms.entropy.clamp(min=0) + TINY) / (batch.old_entropy.clamp(min=0) + TINY)
        kept = (moved > self.low) if self.high is None else (moved > self.low) & (moved < self.high)
        return kept.to(terms.entropy.dtype)
