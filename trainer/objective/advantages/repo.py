"""GRPO's advantage with a share of the token's own log-prob taken off (REPO-R)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.advantages.grpo import GRPO


@dataclass(frozen=True, slots=True, kw_only=True)
class REPO(GRPO):
    """Rare successes count more, rare failures less, so advantage and log-prob are less correlated.

        advantage_t = grpo * (1 - zeta * logprob_t)             where grpo > 0
        advantage_t = grpo * max(1 + zeta * logprob_t, 0)       where grpo < 0 (without the maximum if keep_sign=false)

    The log-prob is the current policy's, detached: the gradient runs through the policy ratio only. ``zeta=0`` is GRPO.

    Shape: [N, T]; unit: standard deviations; zeta per nat.
    """

    about: ClassVar[About] = About(
        source='REPO-R of "Entropy-preserving RL", arXiv 2603.11682, read through one detailed note',
        status="reconstructed",
        departures=(
            "on GRPO's advantages; whether the authors keep the sign of an unlikely failure's advantage was not "
            "recovered, so keep_sign decides"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"zeta": 0.0, "eps": 1e-6}
    detached: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    zeta: float = 0.1
    """Share of the advantage per nat of log-prob; usually set by controller multiplicative."""
    keep_sign: bool = True
    """Whether a failure rarer than exp(-1/zeta) gets 0 instead of a reward."""
    eps: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        GRPO.__post_init__(self)
        require(self.zeta >= 0, "advantage.zeta", self.zeta, "give at least 0")

    def adjusted(self, terms: TokenTerms, batch: ScoredBatch) -> Float[Tensor, "N T"]:
        shift = self.zeta * terms.logprobs
        for_negative = (1 + shift).clamp(min=0) if self.keep_sign else 1 + shift
        return batch.advantages * (1 - shift).where(batch.advantages > 0, for_negative)
