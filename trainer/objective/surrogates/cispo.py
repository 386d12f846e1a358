"""CISPO: REINFORCE weighted by a bounded importance ratio. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class CISPO(Surrogate):
    """Log-probs weighted by the clipped ratio, which carries no gradient itself: no token is ever dropped.

        loss = -sg[clip(ratio, 1 - clip_low, 1 + clip_high)] * advantages * logprobs

    ``sg`` stops the gradient, so the gradient is ``-clip(ratio) A`` times that of the log-prob, and the *value* of the
    loss means nothing. With one update per rollout it is REINFORCE, and where no bound is reached its gradient is that
    of ``surrogate=unclipped``. A bounded ratio removes no gradient, so the clip fractions of the metrics stay 0;
    ``policy/ratio_max`` shows whether the bound was reached.

    Shape [N, T]; ratio dimensionless, loss in units of the advantage times nats.
    """

    about: ClassVar[About] = About(
        source="MiniMax-M1, arXiv 2506.13585: no lower bound, and an upper one that was tuned",
        status="published",
        departures=(
            "the paper's value of the upper bound was not recovered; 4 makes the bound 5, which TRL suggests; TRL "
            "bounds the ratio by its epsilon_high itself, verl on both sides with the thresholds of PPO "
            "(clip_low=0.2 clip_high=0.2)"
        ),
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip_low", "clip_high")
    detached: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    clip_low: float | None = None
    """Ratios count as at least 1 - clip_low. None: no lower bound."""
    clip_high: float | None = 4.0
    """Ratios count as at most 1 + clip_high. None: no upper bound."""

    def __post_init__(self) -> None:
        low, high = self.clip_low, self.clip_high
        require(low is None or 0 <= low <= 1, "surrogate.clip_low", low, "give a number from 0 to 1, or null for none")
        require(high is None or high >= 0, "surrogate.clip_high", high, "give a number of at least 0, or null for none")

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        ratio = importance_ratio(terms.logprobs.detach(), batch.old_logprobs)
        if self.clip_low is not None:
            ratio = ratio.clamp(min=1 - self.clip_low)
        if self.clip_high is not None:
            ratio = ratio.clamp(max=1 + self.clip_high)
        never = torch.zeros_like(batch.mask)
        return SurrogateLoss(loss=-ratio * batch.advantages * terms.logprobs, clipped_low=never, clipped_high=never)
