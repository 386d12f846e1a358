"""One rollout batch to optimiser steps: mini-batches, micro-batches, gradients, and sums into StepStats.

Called by ``loop.py`` once per step. It must not sample, log or write; it does not know which method fills a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor

from trainer.config import OptimConfig, derive_seed
from trainer.distributed import Ranks
from trainer.objective.base import Context, Objective, State, SurrogateLoss
from trainer.pack import mini_batches
from trainer.policy import Policy, share
from trainer.types import StepStats, TokenBatch, TokenTerms, masked_sum


class NonFiniteLoss(RuntimeError):
    """Loss or gradient is not a number. Carries the mini-batch, so that it can be kept for inspection."""

    def __init__(self, what: str, batch: TokenBatch) -> None:
        super().__init__(
            f"{what} is not finite, so the weights were left as they were: look at the batch kept in the run folder"
        )
        self.batch = batch


class EngineMismatch(RuntimeError):
    """Sampler and trainer disagree about the log-probs of the same tokens at what should be the same weights."""


GAP_BOUNDS = {"float32": (2e-3, 2e-4), "bfloat16": (1.5, 0.05), "float16": (0.3, 0.02)}
"""(largest, mean) absolute log-prob gap allowed between sampler and trainer, nats. In float32 the two agree to about
1e-6 on a 0.8 M model and 1e-4 on large ones; one forgotten sync at a usual learning rate moves log-probs by more than
1e-2. bfloat16 has 8 bits of mantissa: single tail tokens may differ by a nat, the mean stays near 0.01."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What an update acts with."""

    policy: Policy
    optimizer: AcceleratedOptimizer
    accelerator: Accelerator
    ranks: Ranks
    optim: OptimConfig
    dtype: str
    """Key into :data:`GAP_BOUNDS`."""


def needs_old_pass(objective: Objective, num_updates: int) -> bool:
    """Whether log-probs and entropy at the sampling weights take a forward pass of their own.

    With one update, the update's own forward pass is at the sampling weights and gives both. With more, or when a
    member looks at them beforehand, they have to be there before the first step changes the weights.
    """
    needs = ("needs_old_entropy", "needs_old_logprobs", "needs_current")
    return num_updates > 1 or any(objective.any(need) for need in needs)


def with_old_terms(batch: TokenBatch, terms: TokenTerms) -> TokenBatch:
    """The batch with log-probs and entropy at the sampling weights filled in."""
    return replace(batch, old_logprobs=terms.logprobs, old_entropy=terms.entropy)


def logprob_gap(batch: TokenBatch) -> tuple[float, float]:
    """(largest, mean) absolute difference between the trainer's and the sampler's log-probs, nats."""
    assert batch.old_logprobs is not None
    gap = (batch.old_logprobs - batch.sampler_logprobs).abs()[batch.mask]
    return (gap.max().item(), gap.mean().item()) if gap.numel() else (0.0, 0.0)


def check_gap(batch: TokenBatch, dtype: str) -> None:
    """Raise :class:`EngineMismatch` when the gap exceeds the bound of ``dtype``: the probe that follows every weight
    sync."""
    largest, mean = logprob_gap(batch)
    max_bound, mean_bound = GAP_BOUNDS[dtype]
    if not (largest <= max_bound and mean <= mean_bound):
        raise EngineMismatch(
            f"sampler and trainer disagree by up to {largest:.2g} nats (mean {mean:.2g}; allowed {max_bound:g} and "
            f"{mean_bound:g} in {dtype}): the engine sampled from other weights, another temperature or another "
            "support than the trainer differentiates"
        )


def update(
    learner: Learner, objective: Objective, batch: TokenBatch, context: Context, state: State, *, version: int
) -> tuple[TokenBatch, StepStats]:
    """All optimiser steps on one rollout batch. ``version``: optimiser steps already taken in the run.

    Returns the batch with ``old_logprobs`` and ``old_entropy`` filled (if they were not) and the sums of the step.
    Raises :class:`NonFiniteLoss` or :class:`EngineMismatch` before the weights of that update are touched.
    """
    stats = StepStats()
    optim = learner.optim
    for epoch in range(optim.epochs):
        generator = torch.Generator().manual_seed(derive_seed(context.seed, context.step, epoch, "minibatches"))
        for part, index in enumerate(mini_batches(batch.group, optim.updates_per_rollout, generator)):
            number = epoch * optim.updates_per_rollout + part
            mini = batch if len(index) == batch.num_rows else batch.rows(index)
            mini = _prepare(
                learner, objective, mini, replace(context, update=number, num_updates=optim.num_updates), state
            )
            mini, part_stats = _accumulate(learner, objective, mini)
            if batch.old_logprobs is None:
                check_gap(mini, learner.dtype)
                batch = with_old_terms(batch, TokenTerms(logprobs=mini.old_logprobs, entropy=mini.old_entropy))  # type: ignore[arg-type]
            stats.merge(part_stats)
            _step(learner, mini, part_stats, stats, version + number)
    return batch, stats


def _prepare(learner: Learner, objective: Objective, mini: TokenBatch, context: Context, state: State) -> TokenBatch:
    """Weights and columns of the whole mini-batch, before it is split."""
    terms = None
    if objective.any("needs_current"):
        measured = learner.policy.measure(
            mini, objective.statistics, rank=learner.ranks.rank, world=learner.ranks.world
        )
        terms = learner.ranks.sum_terms(measured)
    return objective.prepare(mini, terms, context, state)


def _accumulate(learner: Learner, objective: Objective, mini: TokenBatch) -> tuple[TokenBatch, StepStats]:
    """Gradients of the mini-batch's loss; fills the old terms in if this forward pass is the one at the sampling
    weights."""
    policy, ranks = learner.policy, learner.ranks
    scale = objective.reduction.scale(mini)
    fresh = mini.old_logprobs is None
    old = TokenTerms(logprobs=policy.column(mini), entropy=policy.column(mini))
    stats = StepStats()
    for index in share(mini.lengths, policy.micro_batch_tokens, ranks.rank, ranks.world):
        rows = mini.rows(index).to(policy.device)
        terms = policy.terms(rows, objective.statistics)
        if fresh:
            rows = with_old_terms(rows, terms.detach())
            width = rows.inputs.shape[1]
            old.logprobs[index, :width] = terms.logprobs.detach().cpu()
            old.entropy[index, :width] = terms.entropy.detach().cpu()
        loss, surrogate = objective.loss(terms, rows, scale[index].to(policy.device))
        _count(stats, rows, terms.detach(), surrogate, loss.detach())
        if loss.requires_grad and bool(rows.mask.any()):
            learner.accelerator.backward(loss)
    if fresh:
        mini = with_old_terms(mini, ranks.sum_terms(old))
    total = StepStats()
    for part in ranks.gather(stats):
        total.merge(part)
    return mini, total


def _count(stats: StepStats, rows: TokenBatch, terms: TokenTerms, surrogate: SurrogateLoss, loss: Tensor) -> None:
    assert rows.old_logprobs is not None and rows.advantages is not None
    tokens = rows.mask.sum()
    log_ratio = rows.old_logprobs - terms.logprobs
    # k3 of Schulman: unbiased for KL(old || current) on old samples, and never negative.
    kl = (-log_ratio).clamp(max=20).exp() - 1 + log_ratio
    stats.add("policy/kl_old", masked_sum(kl, rows.mask), tokens)
    stats.add("policy/clip_frac_low", surrogate.clipped_low.sum(), tokens)
    stats.add("policy/clip_frac_high", surrogate.clipped_high.sum(), tokens)
    stats.add("policy/loss", loss, 0.0)
    if int(tokens):
        stats.peak("policy/ratio_max", (-log_ratio)[rows.mask].max().exp())


def _step(learner: Learner, mini: TokenBatch, part: StepStats, stats: StepStats, version: int) -> None:
    """One optimiser step with the gradients that are there; ``version`` counts the steps taken before it."""
    parameters = [p for p in learner.policy.model.parameters() if p.requires_grad]
    learner.ranks.sum_gradients(parameters)
    # A loss is counted once per mini-batch, however many parts it was computed in.
    stats.counts["policy/loss"] += 1
    if not torch.isfinite(torch.tensor(part.sums["policy/loss"])):
        raise NonFiniteLoss("the loss", mini)
    max_norm = learner.optim.max_grad_norm or float("inf")
    norm = learner.accelerator.clip_grad_norm_(parameters, max_norm)
    if norm is not None:
        if not torch.isfinite(norm):
            raise NonFiniteLoss("the gradient", mini)
        stats.add("policy/grad_norm", norm)
    warmup = learner.optim.warmup_steps
    lr = learner.optim.lr * min(1.0, (version + 1) / warmup if warmup else 1.0)
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    stats.add("policy/lr", lr)
