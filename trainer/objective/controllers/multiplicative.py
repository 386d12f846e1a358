"""A coefficient that is multiplied while entropy is too low and divided while it is too high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range, require
from trainer.objective.base import Context, State
from trainer.objective.controllers.rollout_entropy import EntropyServo, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiplicative(EntropyServo):
    """Holds entropy at a level, by default that of the first step.

        coef_k = clamp(coef_{k-1} * factor, coef_min, coef_max)     if entropy_k < level
        coef_k = clamp(coef_{k-1} / factor, coef_min, coef_max)     if entropy_k > level,     coef_{-1} = start
        level  = target_entropy, or entropy_0 where that is null

    ``entropy_k`` is that of the rollouts on which the step trains; equality leaves the coefficient alone. REPO-R
    doubles and halves its zeta so (``target=advantage.zeta``); ADAPO moves the upper clip threshold
    (``target=surrogate.clip_high``).

    Shape: one number a step; unit of the target; entropies in nats.
    """

    about: ClassVar[About] = About(
        source='"Entropy-preserving RL", arXiv 2603.11682, read through one detailed note',
        status="reconstructed",
        departures="first value and bounds are assumed, and so is the factor by which ADAPO moves its threshold",
    )

    target: str = "advantage.zeta"
    target_entropy: Annotated[float, Range(0, 100)] | None = None
    """Nats per token that are held; null: what the first step had."""
    factor: float = 2.0
    """What the coefficient is multiplied or divided by."""
    start: float = 0.1
    """Coefficient before the first step."""
    coef_min: float = 0.001
    coef_max: float = 1.0
    estimate: Estimate = "sampled"
    """Entropy by the sampled tokens' log-probs, or over the full vocabulary."""

    def __post_init__(self) -> None:
        path = "controller.multiplicative"
        require(self.factor >= 1, f"{path}.factor", self.factor, "give at least 1")
        require(self.coef_min > 0, f"{path}.coef_min", self.coef_min, "0 times anything stays 0: give more than 0")
        between = f"it lies between {path}.coef_min={self.coef_min} and {path}.coef_max={self.coef_max}"
        require(self.coef_min <= self.start <= self.coef_max, f"{path}.start", self.start, between)

    def initial_state(self) -> State:
        return {"coef": self.start, "level": self.target_entropy}

    def value(self, state: State, context: Context) -> float:
        return float(state["coef"])

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        entropy = self.entropy(batch, context)
        level = entropy if state["level"] is None else state["level"]
        change = self.factor ** (float(entropy < level) - float(entropy > level))
        return {"coef": min(max(state["coef"] * change, self.coef_min), self.coef_max), "level": level}
