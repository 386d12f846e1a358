"""KL-Cov: a penalty on the tokens whose covariance drives entropy down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Context, Diagnostic, Surrogate, SurrogateLoss
from trainer.objective.selection import largest, masked_covariance, num_selected

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings

SELECTED = "kl_cov_selected"
"""Column of ``batch.extras``: True where the penalty applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KLCov(Surrogate):
    """Unclipped policy gradient, and a pull back to the sampling policy on the tokens of highest covariance.

        cov      = (logprobs - mean logprobs) (advantages - mean advantages)       over the mini-batch, detached
        selected = the max(1, floor(top_frac * num_tokens)) tokens of largest cov
        gap      = |logprobs - old_logprobs|, 0 up to dead_zone
        loss     = -advantages * ratio + coef * gap where selected

    The gradient of the gap is the sign of the log-ratio, so the penalty does nothing in the first update of a rollout
    batch and nothing at all with one update. ``top_frac=0`` or ``coef=0`` is the plain policy gradient.

    Shape [N, T]; cov in nats times units of the advantage, coef in units of the advantage per nat.
    """

    about: ClassVar[About] = About(
        source=(
            "\"The Entropy Mechanism\", arXiv 2505.22617, section 4; the authors' and verl's "
            "compute_policy_loss_kl_cov: the paper calls the penalty a KL divergence, the code takes the absolute "
            "log-ratio, and so does this"
        ),
        status="released",
        departures=(
            "covariance and ranking over the mini-batch instead of a micro-batch; a dead zone, because log-probs of"
            " two passes over the same weights may differ in their last digits; top_frac=0 selects nothing"
        ),
    )

    needs_current: ClassVar[bool] = True

    top_frac: float = 2e-3
    """Share of the mini-batch's tokens that is penalised: 2e-3 for the paper's 7B model, 2e-4 for its 32B model."""
    coef: float = 1.0
    """Weight of the penalty."""
    dead_zone: float = 1e-5
    """Log-ratios up to this, in nats, count as 0."""

    def __post_init__(self) -> None:
        require(0 <= self.top_frac <= 1, "surrogate.top_frac", self.top_frac, "a share of tokens lies between 0 and 1")
        require(self.coef >= 0, "surrogate.coef", self.coef, "a penalty is at least 0")
        require(self.dead_zone >= 0, "surrogate.dead_zone", self.dead_zone, "give a number of nats, at least 0")

    @property
    def silent_without_advantage(self) -> bool:
        return self.top_frac == 0 or self.coef == 0

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if run.optim.num_updates == 1:
            yield Diagnostic(
                message="with optim.updates_per_rollout=1 current and sampling policy are the same, so the penalty of"
                " surrogate KLCov is 0 and it is the plain policy gradient: set optim.updates_per_rollout=2 or more",
                fatal=False,
            )

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> dict[str, Tensor]:
        assert batch.advantages is not None and terms is not None
        cov = masked_covariance(terms.logprobs, batch.advantages, batch.mask)
        count = num_selected(self.top_frac, batch.num_tokens) if self.coef else 0
        return {SELECTED: largest(cov, batch.mask, count)}

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        loss = -batch.advantages * importance_ratio(terms.logprobs, batch.old_logprobs)
        gap = (terms.logprobs - batch.old_logprobs).abs()
        penalised = batch.extras[SELECTED] & (gap.detach() > self.dead_zone)
        loss = torch.where(penalised, loss + self.coef * gap, loss)
        never = torch.zeros_like(batch.mask)
        return SurrogateLoss(loss=loss, clipped_low=never, clipped_high=never)
