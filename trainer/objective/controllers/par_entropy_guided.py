"""PAR's entropy-guided schedule of the positive weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from trainer.contract.about import About
from trainer.contract.settings import Range, require
from trainer.objective.base import Context, Controller, Diagnostic, State
from trainer.objective.groups import moving_temperature

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ParEntropyGuided(Controller):
    """The weight of positive advantages falls by a step below an entropy threshold and rises by one otherwise.

        weight = clip(weight - step, 0, 1) if entropy < threshold else clip(weight + step, 0, 1)      after every step

    ``entropy`` is the full-vocabulary entropy of the step's rollouts (``policy/entropy``). The weight starts at 0.

    Shape: one number a step; weight dimensionless, threshold in nats.
    """

    about: ClassVar[About] = About(
        source=(
            'positive-advantage reweighting, "Revisiting Entropy in RL for Large Reasoning Models", arXiv '
            "2511.05993, read through secondary notes"
        ),
        status="published",
    )

    target: str = "weight.sign.positive"
    threshold: Annotated[float, Range(0, 100)] = 0.2
    """Entropy (delta) below which positive advantages lose weight, nats."""
    step: float = 0.05
    """Change of the weight per training step (Delta)."""

    def __post_init__(self) -> None:
        require(0 <= self.step <= 1, "controller.par_entropy_guided.step", self.step, "give a step from 0 to 1")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return moving_temperature(run, "controller par_entropy_guided")

    def initial_state(self) -> State:
        return {"weight": 0.0}

    def value(self, state: State, context: Context) -> float:
        return float(state["weight"])

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        change = -self.step if metrics["policy/entropy"] < self.threshold else self.step
        return {"weight": min(max(state["weight"] + change, 0.0), 1.0)}
