"""DRO: the log-prob, and a quadratic penalty on its change. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Surrogate, SurrogateLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class DRO(Surrogate):
    """REINFORCE without a ratio, regularised by the squared log-ratio.

        loss = -(A logprobs - beta / 2 (logprobs - old_logprobs)^2)

    The gradient vanishes where the log-ratio is ``A / beta``: the larger beta, the smaller the trust region, without a
    clip. Tokens of advantage 0 are pulled back too. With one update per rollout its gradient is that of GRPO.

    Shape [N, T]; beta in units of the advantage per nat, loss in units of the advantage times nats.
    """

    about: ClassVar[About] = About(
        source="DRO (direct reward optimisation), arXiv 2405.19107; verl's policy loss, which leaves beta to the user",
        status="released",
        departures=(
            "as in verl the advantage stands where the paper has a reward minus a learned value; beta=1 is ours: a "
            "token of advantage 1 may grow by a factor e"
        ),
    )

    beta: float = 1.0
    """Weight of the square."""

    def __post_init__(self) -> None:
        require(
            self.beta > 0, "surrogate.beta", self.beta, "without a square nothing holds the policy: give more than 0"
        )

    @property
    def silent_without_advantage(self) -> bool:
        return False

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        gap = terms.logprobs - batch.old_logprobs
        never = torch.zeros_like(batch.mask)
        loss = -(batch.advantages * terms.logprobs - self.beta / 2 * gap * gap)
        return SurrogateLoss(loss=loss, clipped_low=never, clipped_high=never)
