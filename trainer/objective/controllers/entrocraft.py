"""Entrocraft: a corridor for entropy; outside it, training takes correct or incorrect responses only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, State
from trainer.objective.controllers.ramp import Curve, interpolate
from trainer.objective.controllers.rollout_entropy import EntropyServo, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrocraft(EntropyServo):
    """Above the corridor correct responses only, which sharpens; below it incorrect ones only, which flattens.

        middle = interpolate(target_entropy, target_entropy_end, progress)
        side   = 1 if entropy > middle + width / 2;  -1 if entropy < middle - width / 2;  else 0

    ``entropy`` is that of the rollouts on which the step trains; ``progress`` runs from 0 to 1 over the run. ``side``
    is that of ``advantage=one_sided``.

    Shape: one number a step; a sign; entropies in nats.
    """

    about: ClassVar[About] = About(
        source="Entrocraft, arXiv 2604.26326, and lblaoke/entrocraft",
        status="published",
        departures="none; their bounds, 0.6 to 0.4 and 0.7 to 0.5, are stated as middle and width",
    )

    target: str = "advantage.side"
    target_entropy: Annotated[float, Range(0, 100)] = 0.65
    """Middle of the corridor in the first step, nats per token."""
    target_entropy_end: Annotated[float, Range(0, 100)] = 0.45
    """Middle of the corridor in the last step."""
    width: Annotated[float, Range(0, 100)] = 0.1
    """From its lower to its upper edge, nats; the edges belong to it."""
    curve: Curve = "linear"
    """How it moves between the two."""
    estimate: Estimate = "sampled"
    """Entropy by the sampled tokens' log-probs, or over the full vocabulary."""

    def initial_state(self) -> State:
        return {"side": 0.0}

    def value(self, state: State, context: Context) -> float:
        return float(state["side"])

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        middle = interpolate(self.target_entropy, self.target_entropy_end, context.progress, self.curve)
        above = self.entropy(batch, context) - middle
        return {"side": float(above > self.width / 2) - float(above < -self.width / 2)}
