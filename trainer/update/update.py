"""One rollout batch to optimiser steps, and sums into StepStats.

It must not sample, log or write; it does not know which method fills a slot.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from trainer.batch.collate import mini_batches
from trainer.batch.types import StepStats, TokenBatch, TokenTerms
from trainer.contract.seeds import derive_seed
from trainer.metrics.accounting import KEPT_RATIO, RATIO
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Context, State
from trainer.objective.objective import Objective
from trainer.policy.policy import fill
from trainer.runtime.sharding import whole
from trainer.runtime.stopwatch import Stopwatch
from trainer.update.gradient import Differentiated, Learner, differentiate, measure, old_statistics, with_old_terms
from trainer.update.logprob_gap import EXACT, check_gap


class NonFiniteLoss(RuntimeError):
    """Loss or gradient is not a number. Carries the mini-batch, so that it can be kept for inspection."""

    def __init__(self, what: str, batch: TokenBatch) -> None:
        super().__init__(
            f"{what} is not finite, so the weights were left as they were: look at the batch kept in the run folder"
        )
        self.batch = batch


class UpdateObserver(Protocol):
    """Looks at every optimiser update of a step without moving a number of it."""

    def before_step(self, result: Differentiated, context: Context, state: State, clip: float) -> None:
        """The gradient of the mini-batch is in the parameters, multiplied by ``clip``; the optimiser has not moved."""
        ...

    def after_step(self) -> None:
        """The optimiser has moved the weights."""
        ...


def update(
    learner: Learner,
    objective: Objective,
    batch: TokenBatch,
    context: Context,
    state: State,
    *,
    version: int,
    watch: Stopwatch | None = None,
    note_ratios: bool = False,
    observer: UpdateObserver | None = None,
) -> tuple[TokenBatch, StepStats]:
    """All optimiser steps on one rollout batch. ``version``: optimiser steps already taken in the run.

    Forward passes: each row goes through the model once with gradient per epoch. The first mini-batch of a step is at
    the sampling weights, so its own pass gives its old log-probs and entropy, which the sampler's are held against. The
    other rows get theirs from the sampler where it computes in float32 and tells the entropies too; otherwise, and
    where further statistics of that time are wanted (by a member, or the entropy at temperature 1), from one pass
    without gradient before the first optimiser step (share ``1 - 1 / updates_per_rollout`` of the batch). A member that
    ``needs_current`` costs one pass without gradient per mini-batch that is too large for one micro-batch.

    Returns the batch with ``old_logprobs`` and ``old_entropy`` filled and the sums of the step; with ``note_ratios``
    also the ratio at which each token was used, and whether it was clipped then (see ``metrics/accounting.py``).
    ``observer`` sees every update before and after it. Raises
    :class:`NonFiniteLoss` or :class:`EngineMismatch` before the weights of that update are touched.
    """
    stats, watch = StepStats(), watch or Stopwatch()
    optim = learner.optim
    ratios = {name: learner.policy.column(batch) for name in (RATIO, KEPT_RATIO)}
    for epoch in range(optim.epochs):
        generator = torch.Generator().manual_seed(derive_seed(context.seed, context.step, epoch, "minibatches"))
        for part, index in enumerate(mini_batches(batch.group, optim.updates_per_rollout, generator)):
            number = epoch * optim.updates_per_rollout + part
            mini = batch if len(index) == batch.num_rows else batch.rows(index)
            update_context = replace(context, update=number, num_updates=optim.num_updates)
            result = differentiate(learner, objective, mini, update_context, state)
            if batch.old_logprobs is None:
                with watch("old"):
                    batch = _with_old_terms(learner, objective, batch, index, result.terms)
                check_gap(batch, learner.dtype, learner.gap_bounds)
            stats.merge(result.stats)
            if note_ratios:
                _note_ratios(ratios, index, objective, result, share=1 / optim.epochs)
            clip = _clip_gradient(learner, result, stats, version + number)
            if clip is None:
                learner.forget_gradient()
                continue
            if observer is not None:
                with watch("ledger"):
                    observer.before_step(result, update_context, state, clip)
            learner.step()
            learner.forget_gradient()
            if observer is not None:
                with watch("ledger"):
                    observer.after_step()
    return (replace(batch, extras=batch.extras | ratios) if note_ratios else batch), stats


@torch.no_grad()
def _note_ratios(
    ratios: dict[str, Tensor], index: Tensor, objective: Objective, result: Differentiated, *, share: float
) -> None:
    """Add the ratios of an update's rows to the columns of the whole batch, and those of tokens it did not clip."""
    rows, terms = result.batch, result.terms
    assert rows.old_logprobs is not None
    ratio = torch.where(rows.mask, importance_ratio(terms.logprobs, rows.old_logprobs), 0.0) * share
    policy = objective.policy_loss(terms, rows)
    for name, values in ((RATIO, ratio), (KEPT_RATIO, ratio.masked_fill(policy.clipped, 0.0))):
        ratios[name][index, : values.shape[1]] += values.to(ratios[name].dtype)


def _with_old_terms(
    learner: Learner, objective: Objective, batch: TokenBatch, index: Tensor, terms: TokenTerms
) -> TokenBatch:
    """The batch with old terms: ``terms`` for the rows at ``index``, for the rest the sampler's or those of a pass."""
    if len(index) == batch.num_rows:
        return with_old_terms(batch, terms)
    remaining = torch.ones(batch.num_rows, dtype=torch.bool).index_fill(0, index, False).nonzero().squeeze(1)
    others = _sampled_terms(learner, objective, batch.rows(remaining))
    all_terms = learner.policy.empty_terms(batch, old_statistics(learner, objective))
    for rows, part in ((index, terms), (remaining, others)):
        fill(all_terms, rows, part)
    return with_old_terms(batch, all_terms)


def _sampled_terms(learner: Learner, objective: Objective, rows: TokenBatch) -> TokenTerms:
    """Log-probs and entropy at the sampling weights: the sampler's where exact enough, else those of a forward pass."""
    statistics = old_statistics(learner, objective)
    if learner.dtype in EXACT and rows.sampler_entropy is not None and not statistics:
        return TokenTerms(logprobs=rows.sampler_logprobs, entropy=rows.sampler_entropy, extras={})
    return measure(learner, rows, statistics)


def _clip_gradient(learner: Learner, result: Differentiated, stats: StepStats, version: int) -> float | None:
    """Sum the gradient over ranks, clip it, and set the learning rate; ``version`` counts the steps taken before.

    Returns the factor of gradient clipping, or None where the scaled gradient overflowed: then the update is skipped.
    """
    parameters = learner.parameters()
    learner.ranks.sum_gradients(parameters)
    learner.loss_scale.unscale(parameters)
    # A loss is counted once per mini-batch, however many parts it was computed in.
    stats.counts["policy/loss"] += 1
    if not torch.isfinite(torch.tensor(result.stats.sums["policy/loss"])):
        raise NonFiniteLoss("the loss", result.batch)
    max_norm, clip = learner.optim.max_grad_norm or float("inf"), 1.0
    norm = learner.accelerator.clip_grad_norm_(parameters, max_norm)
    if norm is not None:
        norm = whole(norm)
        finite = bool(torch.isfinite(norm))
        skipped = learner.loss_scale.skips(finite)
        if learner.loss_scale.enabled:
            stats.add("policy/overflow_frac", float(skipped))
            stats.add("policy/loss_scale", learner.loss_scale.scale)
        if skipped:
            return None
        if not finite:
            raise NonFiniteLoss("the gradient", result.batch)
        stats.add("policy/grad_norm", norm)
        clip = min(1.0, max_norm / (float(norm) + 1e-6))  # as torch.nn.utils.clip_grad_norm_ has it
    warmup = learner.optim.warmup_steps
    lr = learner.optim.lr * min(1.0, (version + 1) / warmup if warmup else 1.0)
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    stats.add("policy/lr", lr)
    return clip
