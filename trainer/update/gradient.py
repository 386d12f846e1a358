"""The gradient of one mini-batch's loss, in micro-batches, and the sums of what was seen on the way.

It must not step the optimiser, and it does not know which method fills a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from trainer.batch.types import StepStats, TokenBatch, TokenTerms, masked_sum
from trainer.contract.config import OptimConfig
from trainer.metrics.estimators import k3
from trainer.objective.base import Context, State, SurrogateLoss
from trainer.objective.objective import Objective
from trainer.policy.distribution_stats import ENTROPY_T1
from trainer.policy.policy import Policy, fill
from trainer.runtime.ranks import Ranks
from trainer.update import loss_scale, master_weights
from trainer.update.loss_scale import LossScale
from trainer.update.master_weights import MasterWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What an update acts with."""

    policy: Policy
    optimizer: AcceleratedOptimizer
    accelerator: Accelerator
    ranks: Ranks
    optim: OptimConfig
    dtype: str
    """Key into :data:`trainer.update.logprob_gap.GAP_BOUNDS`."""
    gap_bounds: tuple[float | None, float | None] = (None, None)
    """(largest, mean) gap of sampler and trainer to go on with, nats; None: by ``dtype``."""
    masters: MasterWeights = field(default_factory=MasterWeights)
    """What the optimiser moves in place of weights of 16 bits."""
    loss_scale: LossScale = field(default_factory=LossScale)

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser moves: parameters of the model, or their float32 masters."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def step(self) -> None:
        """Move the weights by the gradient that is there."""
        self.optimizer.step()
        self.masters.write()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model: moments, and master weights and loss scale where there are any."""
        return self.optimizer.state_dict() | self.masters.state() | self.loss_scale.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        own = (master_weights.NAME, loss_scale.NAME)
        self.optimizer.load_state_dict({key: value for key, value in state.items() if key not in own})
        self.masters.load(state)
        self.loss_scale.load(state)

    def forget_gradient(self) -> None:
        """Drop the gradient."""
        self.optimizer.zero_grad(set_to_none=True)


def with_old_terms(batch: TokenBatch, terms: TokenTerms) -> TokenBatch:
    """The batch with log-probs, entropy and every further statistic at the sampling weights filled in."""
    extras = {f"old_{name}": value for name, value in terms.extras.items()}
    return replace(batch, old_logprobs=terms.logprobs, old_entropy=terms.entropy, extras=batch.extras | extras)


def measure(
    learner: Learner, batch: TokenBatch, statistics: Iterable[str] = (), *, policy: Policy | None = None
) -> TokenTerms:
    """One forward pass of the learner's policy (or another) over all rows without gradient, shared out over the
    ranks."""
    ranks = learner.ranks
    terms = (policy or learner.policy).measure(batch, statistics, rank=ranks.rank, world=ranks.world)
    return ranks.sum_terms(terms)


def old_statistics(learner: Learner, objective: Objective) -> frozenset[str]:
    """Statistics at the sampling weights that members ask for, and the entropy at temperature 1 where that is another
    than the one the log-probs are at."""
    return objective.old_statistics | ({ENTROPY_T1} if learner.policy.temperature != 1 else frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Rows that go through the model together, and their terms where that has happened already."""

    index: Tensor
    live: bool
    """Whether gradient is wanted."""
    terms: TokenTerms | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differentiated:
    """A mini-batch whose gradient has been added up in the parameters."""

    batch: TokenBatch
    """With weights and every member's columns."""
    terms: TokenTerms
    """At the weights the gradient was taken at, detached, on the CPU."""
    stats: StepStats


def differentiate(
    learner: Learner, objective: Objective, mini: TokenBatch, context: Context, state: State
) -> Differentiated:
    """Add the gradient of the mini-batch's loss to the parameters.

    Rows that cannot carry gradient go through the model without a graph. Where members look at current terms, and one
    micro-batch a rank holds everything with gradient, its one pass serves both; otherwise a pass without gradient goes
    first.
    """
    policy, ranks = learner.policy, learner.ranks
    fresh = mini.old_logprobs is None
    names = objective.statistics | (old_statistics(learner, objective) if fresh else frozenset())
    parts = _parts(learner, objective, mini)
    terms = policy.empty_terms(mini, names)
    ahead = objective.any("needs_current") or (fresh and objective.any("needs_old"))
    if ahead:
        keep = max(ranks.gather(sum(part.live for part in parts))) <= 1
        for number, part in enumerate(parts):
            given = _forward(policy, mini, part, names, graph=keep)
            fill(terms, part.index, given)
            parts[number] = replace(part, terms=given if keep else None)
        terms = ranks.sum_terms(terms)
        if fresh:
            mini = with_old_terms(mini, terms)
    mini = objective.prepare(mini, terms if ahead else None, context, state)
    scale = objective.reduction.scale(mini)
    stats = StepStats()
    for part in parts:
        given = part.terms or _forward(policy, mini, part, names)
        rows = mini.rows(part.index).to(policy.device)
        if not ahead:
            fill(terms, part.index, given)
            rows = with_old_terms(rows, given.detach()) if fresh else rows
        loss, surrogate = objective.loss(given, rows, scale[part.index].to(policy.device))
        _count(stats, rows, given.detach(), surrogate, loss.detach())
        if loss.requires_grad and bool(rows.mask.any()):
            learner.accelerator.backward(learner.loss_scale.scaled(loss))
    if not ahead:
        terms = ranks.sum_terms(terms)
        mini = with_old_terms(mini, terms) if fresh else mini
    _differentiate_auxiliary(learner, objective, context, state, stats)
    total = StepStats()
    for own in ranks.gather(stats):
        total.merge(own)
    return Differentiated(batch=mini, terms=terms, stats=total)


def _parts(learner: Learner, objective: Objective, mini: TokenBatch) -> list[_Part]:
    """This rank's micro-batches, those with gradient first."""
    live = objective.rows_with_gradient(mini)
    return [
        _Part(index=rows[index], live=wanted)
        for wanted in (True, False)
        if len(rows := (live == wanted).nonzero().squeeze(1))
        for index in learner.policy.micro_batch_indices(
            mini.rows(rows), rank=learner.ranks.rank, world=learner.ranks.world
        )
    ]


def _forward(policy: Policy, mini: TokenBatch, part: _Part, names: Iterable[str], *, graph: bool = True) -> TokenTerms:
    with torch.set_grad_enabled(part.live and graph):
        return policy.terms(mini.rows(part.index).to(policy.device), names)


def _differentiate_auxiliary(
    learner: Learner, objective: Objective, context: Context, state: State, stats: StepStats
) -> None:
    """Add the gradient of rows that regularizers bring along."""
    policy, ranks = learner.policy, learner.ranks
    for _, regularizer, own in objective.auxiliary(context, state):
        for index in policy.micro_batch_indices(own.rows, rank=ranks.rank, world=ranks.world):
            rows = own.rows.rows(index).to(policy.device)
            terms = policy.terms(rows, regularizer.statistics, temperature=own.temperature)
            values = regularizer.auxiliary_loss(terms, rows)
            loss = torch.where(rows.mask, values, torch.zeros((), dtype=values.dtype, device=values.device)).sum()
            stats.add("policy/loss", loss.detach(), 0.0)
            learner.accelerator.backward(learner.loss_scale.scaled(loss))


def _count(stats: StepStats, rows: TokenBatch, terms: TokenTerms, surrogate: SurrogateLoss, loss: Tensor) -> None:
    assert rows.old_logprobs is not None and rows.advantages is not None
    tokens = rows.mask.sum()
    log_ratio = terms.logprobs - rows.old_logprobs
    stats.add("policy/kl_old", masked_sum(k3(log_ratio), rows.mask), tokens)
    stats.add("policy/clip_frac_low", surrogate.clipped_low.sum(), tokens)
    stats.add("policy/clip_frac_high", surrogate.clipped_high.sum(), tokens)
    stats.add("policy/clip_frac_dual", 0.0 if surrogate.clipped_dual is None else surrogate.clipped_dual.sum(), tokens)
    stats.add("policy/loss", loss, 0.0)
    if int(tokens):
        stats.peak("policy/ratio_max", log_ratio[rows.mask].max().exp())
