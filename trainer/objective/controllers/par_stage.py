"""PAR's stage schedule of the positive weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Controller, State
from trainer.objective.controllers.ramp import ramp_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class ParStage(Controller):
    """Positive advantages count nothing for the first part of the run; then their weight rises linearly to 1.

        weight = clip((progress - silent_frac) / (1 - silent_frac), 0, 1),      progress = step / (num_steps - 1)

    Shape: one number a step; dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            'positive-advantage reweighting, "Revisiting Entropy in RL for Large Reasoning Models", arXiv '
            "2511.05993, read through secondary notes"
        ),
        status="published",
    )

    target: str = "weight.sign.positive"
    silent_frac: float = 0.5
    """Share of the run with weight 0."""

    def __post_init__(self) -> None:
        require(0 <= self.silent_frac < 1, "controller.par_stage.silent_frac", self.silent_frac, "give a share below 1")

    def value(self, state: State, context: Context) -> float:
        return ramp_fraction(context.progress, self.silent_frac, 1.0)
