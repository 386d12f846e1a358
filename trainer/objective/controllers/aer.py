"""AER's global coefficient: an integral controller that holds a share of the initial entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from trainer.contract.about import About
from trainer.contract.settings import Range, require
from trainer.objective.base import Context, Controller, State


@dataclass(frozen=True, slots=True, kw_only=True)
class AERController(Controller):
    """A coefficient that rises while the entropy is below its target and falls while it is above.

        target_entropy = target_frac * entropy of the first step, unless it is given
        coef           = max(0, coef + gain * (target_entropy - entropy))          after every step

    ``entropy`` is the full-vocabulary entropy of the step's rollouts at temperature 1 (``policy/entropy_t1``), which a
    schedule of the temperature does not move. The coefficient starts at
    ``start``.

    Shape: one number a step; coef in loss units per nat, gain in loss units per square nat.
    """

    about: ClassVar[About] = About(
        source=(
            '"Revisiting Entropy Regularization", arXiv 2510.10959, of which the abstract and summaries were read: '
            "a target anchored to the initial entropy, and a global coefficient adjusted to hold it, are theirs; a "
            "summary puts the best share (tau) near 0.4"
        ),
        status="reconstructed",
        departures="the update rule and its gain are assumed",
    )

    target: str = "regularizer.aer.coef"
    target_frac: float = 0.4
    """Share of the initial entropy that is held (tau)."""
    target_entropy: Annotated[float, Range(0, 100)] | None = None
    """Nats per token that are held; null: the share of the initial entropy."""
    gain: float = 0.005
    """Change of the coefficient per step and nat of deviation (eta_alpha)."""
    start: float = 0.0
    """Coefficient of the first step."""

    def __post_init__(self) -> None:
        require(
            self.target_frac >= 0, "controller.aer.target_frac", self.target_frac, "give a share of the initial entropy"
        )
        require(self.gain >= 0, "controller.aer.gain", self.gain, "give a gain of at least 0")
        require(self.start >= 0, "controller.aer.start", self.start, "give a coefficient of at least 0")

    def initial_state(self) -> State:
        return {"coef": self.start, "initial_entropy": None}

    def value(self, state: State, context: Context) -> float:
        return float(state["coef"])

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        entropy, initial = metrics["policy/entropy_t1"], state["initial_entropy"]
        initial = entropy if initial is None else initial
        target = self.target_frac * initial if self.target_entropy is None else self.target_entropy
        coef = max(0.0, state["coef"] + self.gain * (target - entropy))
        return {"coef": coef, "initial_entropy": initial}
