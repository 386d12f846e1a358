"""SCOPE's share of correct responses: the further entropy is from its target, the more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, State
from trainer.objective.controllers.rollout_entropy import EntropyServo, Estimate
from trainer.objective.groups import is_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class SCOPEController(EntropyServo):
    """How much ``advantage=scope`` mixes in, and by the sign at which temperature.

        a    = min(|target_entropy - entropy|, max_error) / accuracy
        pull = sign(target_entropy - entropy) * a / (1 + a);     0 where no response is correct

    ``entropy`` and ``accuracy`` are those of the rollouts on which the step trains.

    Shape: one number a step; dimensionless; entropies in nats.
    """

    about: ClassVar[About] = About(
        source='SCOPE-RL, "Arbitrary Entropy Policy Optimization", arXiv 2510.08141, from notes on the authors\' '
        "repository",
        status="reconstructed",
        departures="none known; exactly on target a is 0, so the temperature does not matter there",
    )

    target: str = "advantage.pull"
    target_entropy: Annotated[float, Range(0, 100)] = 0.5
    """Nats per token (H*); 0.75 did best in the paper."""
    max_error: Annotated[float, Range(0, 100)] = 0.1
    """Errors above count as this many nats."""
    estimate: Estimate = "sampled"
    """Entropy by the sampled tokens' log-probs, or over the full vocabulary."""

    def initial_state(self) -> State:
        return {"pull": 0.0}

    def value(self, state: State, context: Context) -> float:
        return float(state["pull"])

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        error = self.target_entropy - self.entropy(batch, context)
        accuracy = float(is_correct(batch).double().mean())
        strength = min(abs(error), self.max_error) / accuracy if accuracy else 0.0
        return {"pull": math.copysign(strength / (1 + strength), error)}
