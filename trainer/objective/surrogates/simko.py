"""SimKO: at uncertain tokens of correct responses the likeliest candidates share the gradient. Row-local; called
through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss
from trainer.objective.selection import above_row_quantile
from trainer.objective.surrogates.ppo_clip import clipped_loss

TIE = 1e-6
"""Probabilities that differ by this share are equal: the likeliest token's is computed twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimKO(Surrogate):
    """PPO's loss with another direction of the ratio where A > 0, and a stronger penalty of the favourite where A < 0.

        forking    = tokens whose entropy lies above the quantile of their own response
        ratio'     = (1 - smoothing) ratio + (smoothing / K) sum_{k <= K} sg(ratio / ratio_k) ratio_k     forking, A > 0
        advantage' = penalty * A          forking, A < 0, and the sampled token is the likeliest one
        loss       = max(-A' ratio', -A' clip(ratio', 1 - clip, 1 + clip))

    ``ratio_k`` is that of the k-th likeliest token. Since sg(ratio / ratio_k) ratio_k has the value ``ratio`` and the
    gradient ``ratio grad log p_k``, whatever the old probability of k was, the value is PPO's, the clip decides on the
    sampled token's ratio, and no old top-K probabilities are needed: that the released code compares slots which may
    hold different tokens by then does no harm. Quantile, candidates and favourite are the current policy's.
    ``smoothing=0, penalty=1`` is PPO.

    Shape [N, T]; ratios dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="SimKO, arXiv 2510.14807, from notes on the authors' code (CLR-Lab/SimKO)",
        status="released",
        departures="correct responses are those of positive advantage",
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip",)
    neutral: ClassVar[dict[str, object] | None] = {"smoothing": 0.0, "penalty": 1.0, "clip": 0.2}
    detached: ClassVar[frozenset[str]] = frozenset({"logprobs", "entropy", "top_k_logprobs@3", "top_k_mass@1"})

    top_k: Annotated[int, Range(1, 10_000)] = 3
    """Candidates that share the gradient (K)."""
    smoothing: Annotated[float, Range(0, 1)] = 0.01
    """Of the gradient, what goes to them in equal parts (lambda), as in label smoothing."""
    quantile: Annotated[float, Range(0, 1)] = 0.8
    """Of a response's entropies; tokens above it are forking (tau)."""
    penalty: Annotated[float, Range(0, 1000)] = 1.1
    """Factor on the negative advantage of a forking token that was the likeliest."""
    clip: Annotated[float, Range(0, 1)] = 0.2
    """Ratios further than this from 1 lose their gradient where it would drive them further."""

    @property
    def statistics(self) -> frozenset[str]:
        used_by = {self._candidates: self.smoothing != 0, "top_k_mass@1": self.penalty != 1}
        return frozenset(name for name, used in used_by.items() if used)

    @property
    def _candidates(self) -> str:
        return f"top_k_logprobs@{self.top_k}"

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        advantages, ratio = batch.advantages, importance_ratio(terms.logprobs, batch.old_logprobs)
        forking = above_row_quantile(terms.entropy, batch.mask, self.quantile)
        if self.smoothing:
            candidates = terms.extras[self._candidates]
            direction = (1 - self.smoothing) * terms.logprobs + self.smoothing * candidates
            shared = ratio.detach() * (1 + direction - direction.detach())
            ratio = torch.where(forking & (advantages > 0), shared, ratio)
        if self.penalty != 1:
            favourite = terms.logprobs.detach().exp() >= terms.extras["top_k_mass@1"].detach() * (1 - TIE)
            advantages = advantages.where(~(forking & favourite & (advantages < 0)), self.penalty * advantages)
        rows = replace(batch, advantages=advantages)
        return clipped_loss(ratio, rows, floor=1 - self.clip, ceiling=1 + self.clip, dual_clip=None)
