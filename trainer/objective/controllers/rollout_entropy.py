"""The entropy that controllers answer to, before the first update of a step. A pure function; it must not know any
controller."""

from __future__ import annotations

from typing import Literal

from trainer.batch.types import TokenBatch, masked_sum
from trainer.objective.base import Context

Estimate = Literal["sampled", "exact"]


def rollout_entropy(batch: TokenBatch, context: Context, estimate: Estimate) -> float:
    """Mean entropy of the policy over the sampled tokens, nats per token, at the temperature of the rollouts.

    sampled   -sum mask * sampler_logprobs / sum mask       unbiased, and costs nothing
    exact     sum mask * H / sum mask                       full vocabulary, one forward pass
    """
    if estimate == "sampled":
        values = -batch.sampler_logprobs
    else:
        assert context.services is not None
        values = context.services.measure(batch).entropy
    return float(masked_sum(values, batch.mask)) / max(batch.num_tokens, 1)
