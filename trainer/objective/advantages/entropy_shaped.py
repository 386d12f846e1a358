"""GRPO advantages with a share of the token's entropy on top (Cheng et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.advantages.grpo import GRPO


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyShaped(GRPO):
    """GRPO's advantage plus a bonus for tokens of high entropy, never more than a share of the advantage itself.

        psi_t       = min(alpha * entropy_t, |grpo_t| / kappa)
        advantage_t = grpo_t + psi_t

    The entropy is the current policy's, detached: the gradient runs through the policy ratio only. ``kappa >= 1``, so
    no sign ever flips, and where GRPO gives 0 this does too. ``alpha=0`` is GRPO.

    Shape: [N, T]; unit: standard deviations; alpha in standard deviations per nat.
    """

    about: ClassVar[About] = About(
        source="Cheng et al., arXiv 2506.14758",
        status="published",
        departures=(
            "none known (the authors' code was not read); their rewards are 1 and -1, which GRPO's standardisation "
            "makes equal to 1 and 0"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"alpha": 0.0, "eps": 1e-6}
    detached: ClassVar[frozenset[str]] = frozenset({"entropy"})

    alpha: float = 0.4
    """Advantage per nat of entropy: 0.4 with GRPO (0.1 with PPO)."""
    kappa: float = 2.0
    """The bonus is at most 1 / kappa of the advantage; at 1 it can cancel a negative one."""
    eps: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        GRPO.__post_init__(self)
        require(self.alpha >= 0, "advantage.alpha", self.alpha, "give at least 0")
        require(self.kappa >= 1, "advantage.kappa", self.kappa, "below 1 the bonus could turn an advantage's sign")

    def adjusted(self, terms: TokenTerms, batch: ScoredBatch) -> Float[Tensor, "N T"]:
        # An entropy of 0 may come out a hair below 0, and a token without an advantage must stay without.
        bonus = self.alpha * terms.entropy.clamp(min=0)
        return batch.advantages + torch.minimum(bonus, batch.advantages.abs() / self.kappa)
