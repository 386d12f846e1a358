"""The entropy that drives controllers, measured before the first update of a step. It must not know any controller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trainer.batch.types import TokenBatch, masked_sum
from trainer.objective.base import Context, Controller, Diagnostic
from trainer.objective.groups import moving_temperature

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyServo(Controller):
    """What controllers share that hold the entropy of the rollouts against a number of nats."""

    estimate: Estimate = "sampled"

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return moving_temperature(run, f"controller {type(self).__name__}")

    def entropy(self, batch: TokenBatch, context: Context) -> float:
        """:func:`rollout_entropy` by this controller's estimate, nats per token."""
        return rollout_entropy(batch, context, self.estimate)
