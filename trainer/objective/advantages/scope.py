"""SCOPE: GRPO mixed with correct responses, weighted as if they had been sampled at another temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import importance_ratio
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.groups import is_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class SCOPE(GRPO):
    """A share of the advantage goes to correct responses, their tokens weighed as if sampled hotter or colder.

        advantage_t = (1 - |pull|) * grpo + |pull| * w_t      where the response is correct
        advantage_t = (1 - |pull|) * grpo                     where it is not
        w_t = p'(o_t) / p(o_t),   p'_a proportional to p_a^(1/T),   T = hot if pull > 0 else cold

    ``p`` is the policy that sampled. Rare tokens weigh more under ``hot``, which flattens, and less under ``cold``.
    ``pull=0`` is GRPO.

    Shape: [N, T]; unit: standard deviations; w, pull and temperatures dimensionless.
    """

    about: ClassVar[About] = About(
        source='the form without a second rollout of SCOPE-RL, "Arbitrary Entropy Policy Optimization", arXiv '
        "2510.08141, from notes on the authors' repository, which calls it DCPO",
        status="reconstructed",
        departures=(
            "T multiplies the rollouts' own temperature, 1 in their scripts; their main form samples a second batch at "
            "T and trains on its correct responses instead"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"pull": 0.0, "eps": 1e-6}

    pull: float = 0.1
    """Share that goes to correct responses (alpha), and by its sign which way; usually set by controller scope."""
    hot: float = 1.2
    """Factor on the temperature that raises entropy."""
    cold: float = 0.8
    """Factor on the temperature that lowers it."""
    eps: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        GRPO.__post_init__(self)
        require(-1 <= self.pull <= 1, "advantage.pull", self.pull, "it is a share with a sign: give -1 to 1")
        require(1 <= self.hot <= 100, "advantage.hot", self.hot, "give at least 1")
        require(0.01 <= self.cold <= 1, "advantage.cold", self.cold, "give more than 0 and at most 1")

    @property
    def old_statistics(self) -> frozenset[str]:
        return frozenset(map(_tempered, (self.hot, self.cold))) if self.pull else frozenset()

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        mix = abs(self.pull)
        return (1 - mix) * GRPO.__call__(self, batch) + mix * is_correct(batch)

    def adjusted(self, terms: TokenTerms, batch: ScoredBatch) -> Float[Tensor, "N T"]:
        if self.pull == 0:
            return batch.advantages
        weight = importance_ratio(
            batch.extras[f"old_{_tempered(self.hot if self.pull > 0 else self.cold)}"], batch.old_logprobs
        )
        extra = abs(self.pull) * (weight - 1) * is_correct(batch)[:, None]
        return batch.advantages + extra.where(batch.advantages != 0, torch.zeros_like(extra))


def _tempered(factor: float) -> str:
    return f"tempered_logprobs@{factor}"
