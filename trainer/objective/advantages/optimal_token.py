"""The optimal token baseline: rewards minus a baseline that differs between the positions of a group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.objective.advantages.dr_grpo import DrGRPO
from trainer.objective.base import Advantage, Context, Diagnostic

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings

COLUMN = "optimal_token_advantages"
"""Column of ``batch.extras`` [N, T]: the advantages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimalToken(Advantage):
    """The baseline of least variance at each position, from how much gradient a response has gathered up to there.

        W_it          = sum_{j <= t} (1 - 2 p_ij + sum_a p_a^2)       squared length of grad log p by the logits, summed
        baseline_t    = sum_i W_it reward_i / sum_i W_it              over the responses of the group that reach t
        advantage_it  = reward_i - baseline_t

    At the weights that sampled: one more forward pass without gradient a step. Groups of equal rewards give exactly 0,
    and so does a response whose reward is the plain mean of its group.

    Shape: [N, T]; unit: reward, W dimensionless.
    """

    about: ClassVar[About] = About(
        source="OTB (the optimal token baseline), arXiv 2602.07078 (abstract read); verl's advantage estimator",
        status="released",
        departures=(
            "a response at the plain mean of its group keeps advantage 0, and weights and metrics that look at the sign"
            " of an advantage before the update see reward minus that mean"
        ),
    )

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return DrGRPO().diagnostics(run)

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        return DrGRPO()(batch)

    def columns(self, batch: TokenBatch, context: Context) -> dict[str, Tensor]:
        assert context.services is not None
        terms = context.services.measure(batch, {"sum_p2"})
        return {COLUMN: token_advantages(terms, batch)}

    def adjusted(self, terms: TokenTerms, batch: ScoredBatch) -> Float[Tensor, "N T"]:
        return torch.where(batch.advantages != 0, batch.extras[COLUMN].to(batch.advantages.dtype), batch.advantages)


def token_advantages(terms: TokenTerms, batch: TokenBatch) -> Float[Tensor, "N T"]:
    """:class:`OptimalToken` [N, T] in units of the reward, from log-probs and ``sum_p2``; 0 off the mask."""
    step = (1 - 2 * terms.logprobs.exp() + terms.extras["sum_p2"]).double().clamp(min=0)
    weight = step.masked_fill(~batch.mask, 0.0).cumsum(dim=1).masked_fill(~batch.mask, 0.0)
    rewards = batch.rewards.double()[:, None]
    baseline = torch.zeros_like(weight)
    for number in torch.unique(batch.group):
        rows = batch.group == number
        reached = batch.mask[rows].double()
        # Where every response was certain so far there is no gradient, and any baseline will do: the plain mean.
        total = weight[rows].sum(dim=0, keepdim=True)
        token_weight = torch.where(total > 0, weight[rows], reached)
        baseline[rows] = (token_weight * rewards[rows]).sum(dim=0) / token_weight.sum(dim=0).clamp(min=1e-300)
    return (rewards - baseline).masked_fill(~batch.mask, 0.0).to(terms.logprobs.dtype)
