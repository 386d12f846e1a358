"""EntroPIC: a proportional-integral controller that holds entropy at a target by the weights of the signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range, require
from trainer.objective.base import Context, State
from trainer.objective.controllers.rollout_entropy import EntropyServo, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class EntroPIC(EntropyServo):
    """Below the target, positive advantages lose weight and negative ones gain it; above it, the reverse.

        e_k     = entropy_k - target_entropy
        alpha_k = clamp(proportional * e_k + I_k, -alpha_max, alpha_max)
        I_0     = 0,     I_{k+1} = clamp(I_k + integral * e_k, -alpha_max, alpha_max)

    ``entropy_k`` is that of the rollouts on which the step trains. ``alpha`` is the weight that positive advantages
    gain (``weight=[sign_balance]``).

    Shape: one number a step; dimensionless; gains per nat.
    """

    about: ClassVar[About] = About(
        source=(
            "EntroPIC, arXiv 2511.15248, read through its project page and the re-implementation in "
            "lblaoke/entrocraft, whose gains these are"
        ),
        status="reconstructed",
        departures=(
            "alpha and its integral part are clamped: no weight turns negative, and the integral does not wind up "
            "while the target is out of reach; GRPO's advantages, where the re-implementation has rewards of 1 and -1"
        ),
    )

    target: str = "weight.sign_balance.alpha"
    target_entropy: Annotated[float, Range(0, 100)] = 0.5
    """Nats per token (H*)."""
    proportional: float = 1.0
    """Weight per nat of this step's error (K_p)."""
    integral: float = 0.01
    """Weight per nat of the sum of earlier errors (K_i)."""
    alpha_max: float = 1.0
    """Largest weight that one sign can gain and the other lose; at 1 one of them falls silent."""
    estimate: Estimate = "sampled"
    """Entropy by the sampled tokens' log-probs, or over the full vocabulary."""

    def __post_init__(self) -> None:
        path = "controller.entropic"
        require(self.proportional >= 0, f"{path}.proportional", self.proportional, "a gain is at least 0")
        require(self.integral >= 0, f"{path}.integral", self.integral, "a gain is at least 0")
        require(0 <= self.alpha_max <= 1, f"{path}.alpha_max", self.alpha_max, "above 1 a weight would turn negative")

    def initial_state(self) -> State:
        return {"alpha": 0.0, "integral": 0.0}

    def value(self, state: State, context: Context) -> float:
        return float(state["alpha"])

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        error = self.entropy(batch, context) - self.target_entropy
        return {
            "alpha": self._clamped(self.proportional * error + state["integral"]),
            "integral": self._clamped(state["integral"] + self.integral * error),
        }

    def _clamped(self, alpha: float) -> float:
        return min(max(alpha, -self.alpha_max), self.alpha_max)
