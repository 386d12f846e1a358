"""Policy entropy of a step: exact, over the full vocabulary, over all response tokens, at the sampling weights.

It returns sums and counts; a mean of means (over micro-batches, rows or ranks) would weight tokens unequally. It
must not estimate entropy from samples: that is surprisal.
"""

from __future__ import annotations

from trainer.batch.types import StepStats, TokenBatch, masked_sum
from trainer.policy.distribution_stats import ENTROPY_T1, SUM_P2

CERTAIN_NATS = 0.05
"""A token below this entropy is nearly certain: no choice was made there."""


def entropy_stats(batch: TokenBatch) -> StepStats:
    """``policy/entropy``, the same at temperature 1 and by sign of advantage, surprisal and shares, as sums and counts
    over the tokens of ``batch``; the Renyi entropy of order 2 where a member asked for ``sum_p2`` at the sampling
    weights.

    Uses ``old_entropy``, ``old_logprobs``, ``advantages`` [N, T] in nats where ``mask`` [N, T]; ValueError if one is
    missing. Tokens with advantage exactly 0 count in ``policy/entropy`` only.
    """
    entropy, logprobs, advantages = batch.old_entropy, batch.old_logprobs, batch.advantages
    if entropy is None or logprobs is None or advantages is None:
        raise ValueError("entropy metrics need old_entropy, old_logprobs and advantages; run those passes first")
    mask = batch.mask
    positive, negative = mask & (advantages > 0), mask & (advantages < 0)
    tokens = mask.sum()
    stats = StepStats()
    # float64 sums: 512 x 8192 float32 values would lose the digits that tell two late steps apart.
    stats.add("policy/entropy", masked_sum(entropy.double(), mask), tokens)
    entropy_t1 = batch.extras.get(f"old_{ENTROPY_T1}", entropy)  # one and the same at temperature 1
    stats.add("policy/entropy_t1", masked_sum(entropy_t1.double(), mask), tokens)
    if f"old_{SUM_P2}" in batch.extras:
        agreement = batch.extras[f"old_{SUM_P2}"].double()
        stats.add("policy/renyi2_entropy", masked_sum(-agreement.where(mask, 1.0).log(), mask), tokens)
    stats.add("policy/entropy_positive", masked_sum(entropy.double(), positive), positive.sum())
    stats.add("policy/entropy_negative", masked_sum(entropy.double(), negative), negative.sum())
    stats.add("policy/surprisal", -masked_sum(logprobs.double(), mask), tokens)
    stats.add("policy/certain_frac", (mask & (entropy < CERTAIN_NATS)).sum(), tokens)
    stats.add("policy/advantage_positive_frac", positive.sum(), tokens)
    return stats
