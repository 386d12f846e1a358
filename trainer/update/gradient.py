"""The gradient of one mini-batch's loss, in micro-batches, and the sums for the metrics.

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
from trainer.runtime.sharding import part_of
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
        moments: dict[str, Any] = self.optimizer.state_dict()
        return moments | self.masters.state() | self.loss_scale.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        other_keys = (master_weights.NAME, loss_scale.NAME)
        moments = {key: value for key, value in state.items() if key not in other_keys}
        own = dict(enumerate(self.parameters()))
        moments["state"] = {
            number: {key: part_of(value, own[number]) if value.ndim else value for key, value in entry.items()}
            for number, entry in moments["state"].items()
        }
        self.optimizer.load_state_dict(moments)
        self.masters.load(state)
        self.loss_scale.load(state)

    def forget_moments(self) -> None:
        """Begin AdamW anew: no moments, and no updates behind it."""
        self.optimizer.state.clear()

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
class _MicroBatch:
    """Rows that go through the model together, and their terms where that has happened already."""

    index: Tensor
    with_gradient: bool
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

    Rows that cannot carry gradient go through the model without a graph.
    """
    fresh = mini.old_logprobs is None
    terms_first = objective.needs_current or (fresh and objective.needs_old)
    method = _terms_first if terms_first else _terms_along
    result = method(learner, objective, mini, context, state)
    _differentiate_auxiliary(learner, objective, context, state, result.stats)
    total = StepStats()
    for stats in learner.ranks.gather(result.stats):
        total.merge(stats)
    return replace(result, stats=total)


def _terms_first(
    learner: Learner, objective: Objective, mini: TokenBatch, context: Context, state: State
) -> Differentiated:
    """The gradient where members look at the terms of the whole mini-batch first; statistics of this rank.

    A forward pass without gradient goes ahead, unless one micro-batch a rank holds everything with gradient: its one
    pass then serves both.
    """
    policy, fresh = learner.policy, mini.old_logprobs is None
    names = _names(learner, objective, mini)
    parts = _micro_batches(learner, objective, mini)
    terms = policy.empty_terms(mini, names)
    keep = sum(part.with_gradient for part in parts) <= 1
    for number, part in enumerate(parts):
        values = _forward(policy, mini, part, names, graph=keep)
        fill(terms, part.index, values)
        parts[number] = replace(part, terms=values if keep else None)
    terms = learner.ranks.sum_terms(terms)
    mini = objective.prepare(with_old_terms(mini, terms) if fresh else mini, terms, context, state)
    scale = objective.reduction.scale(mini)
    stats = StepStats()
    for part in parts:
        values = part.terms or _forward(policy, mini, part, names)
        _backward(learner, objective, mini.rows(part.index).to(policy.device), values, scale[part.index], stats)
    return Differentiated(batch=mini, terms=terms, stats=stats)


def _terms_along(
    learner: Learner, objective: Objective, mini: TokenBatch, context: Context, state: State
) -> Differentiated:
    """The gradient where no member looks ahead: one forward pass, its terms kept on the way; statistics of this
    rank."""
    policy, fresh = learner.policy, mini.old_logprobs is None
    names = _names(learner, objective, mini)
    parts = _micro_batches(learner, objective, mini)
    terms = policy.empty_terms(mini, names)
    mini = objective.prepare(mini, None, context, state)
    scale = objective.reduction.scale(mini)
    stats = StepStats()
    for part in parts:
        values = _forward(policy, mini, part, names)
        fill(terms, part.index, values)
        rows = mini.rows(part.index).to(policy.device)
        rows = with_old_terms(rows, values.detach()) if fresh else rows
        _backward(learner, objective, rows, values, scale[part.index], stats)
    terms = learner.ranks.sum_terms(terms)
    return Differentiated(batch=with_old_terms(mini, terms) if fresh else mini, terms=terms, stats=stats)


def _names(learner: Learner, objective: Objective, mini: TokenBatch) -> frozenset[str]:
    """Statistics to make beside log-probs and entropy; in a step's first update also those at the sampling weights."""
    return objective.statistics | (old_statistics(learner, objective) if mini.old_logprobs is None else frozenset())


def _backward(
    learner: Learner, objective: Objective, rows: TokenBatch, terms: TokenTerms, scale: Tensor, stats: StepStats
) -> None:
    """Add the gradient of one micro-batch to the parameters, and what its surrogate did to ``stats``."""
    loss = torch.zeros(())
    if rows.num_rows:
        loss, surrogate = objective.loss(terms, rows, scale.to(learner.policy.device))
        _count(stats, rows, terms.detach(), surrogate, loss.detach())
    _differentiate(learner, loss, terms, rows)


def _differentiate(learner: Learner, loss: Tensor, terms: TokenTerms, rows: TokenBatch) -> None:
    """One backward pass from ``loss`` if it has something to teach. Ranks that share out weights have to make the same
    passes, so they make one of zeros if it has not."""
    if loss.requires_grad and bool(rows.mask.any()):
        learner.accelerator.backward(learner.loss_scale.scaled(loss))
    elif learner.policy.root is not None and terms.logprobs.requires_grad:
        learner.accelerator.backward(learner.loss_scale.scaled(terms.logprobs[:0].sum()))


def _micro_batches(learner: Learner, objective: Objective, mini: TokenBatch) -> list[_MicroBatch]:
    """This rank's micro-batches, those with gradient first."""
    with_gradient = objective.rows_with_gradient(mini)
    return [
        _MicroBatch(index=rows[index], with_gradient=needs_gradient)
        for needs_gradient in (True, False)
        if len(rows := (with_gradient == needs_gradient).nonzero().squeeze(1))
        for index in learner.policy.micro_batch_indices(
            mini.rows(rows), rank=learner.ranks.rank, world=learner.ranks.world
        )
    ]


def _forward(
    policy: Policy, mini: TokenBatch, part: _MicroBatch, names: Iterable[str], *, graph: bool = True
) -> TokenTerms:
    with torch.set_grad_enabled(part.with_gradient and graph):
        return policy.terms(mini.rows(part.index).to(policy.device), names)


def _differentiate_auxiliary(
    learner: Learner, objective: Objective, context: Context, state: State, stats: StepStats
) -> None:
    """Add the gradient of rows that regularizers bring along."""
    policy, ranks = learner.policy, learner.ranks
    for _, regularizer, extra in objective.auxiliary(context, state):
        for index in policy.micro_batch_indices(extra.rows, rank=ranks.rank, world=ranks.world):
            rows = extra.rows.rows(index).to(policy.device)
            terms = policy.terms(rows, regularizer.statistics, temperature=extra.temperature)
            loss = torch.zeros(())
            if rows.num_rows:
                values = regularizer.auxiliary_loss(terms, rows)
                loss = torch.where(rows.mask, values, torch.zeros((), dtype=values.dtype, device=values.device)).sum()
            stats.add("policy/loss", loss.detach(), 0.0)
            _differentiate(learner, loss, terms, rows)


def _count(stats: StepStats, rows: TokenBatch, terms: TokenTerms, surrogate: SurrogateLoss, loss: Tensor) -> None:
    assert rows.old_logprobs is not None and rows.advantages is not None
    tokens = rows.mask.sum()
    log_ratio = terms.logprobs - rows.old_logprobs
    stats.add("policy/kl_old", masked_sum(k3(log_ratio), rows.mask), tokens)
    stats.add("policy/clip_frac_low", surrogate.clipped_low.sum(), tokens)
    stats.add("policy/clip_frac_high", surrogate.clipped_high.sum(), tokens)
    stats.add("policy/clip_frac_dual", 0.0 if surrogate.clipped_dual is None else surrogate.clipped_dual.sum(), tokens)
    assert rows.weights is not None
    stats.add("policy/weight_zero_frac", (rows.mask & (rows.weights == 0)).sum(), tokens)
    stats.add("policy/loss", loss, 0.0)
    if int(tokens):
        stats.peak("policy/ratio_max", log_ratio[rows.mask].max().exp())
