"""A coefficient that moves along half a cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainer.contract.about import About
from trainer.objective.base import Context, Controller, State
from trainer.objective.controllers.ramp import interpolate, ramp_fraction, require_span


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine(Controller):
    """Any coefficient, moved along half a cosine over a part of the run and held before and after it.

        fraction = clip((progress - from_frac) / (until_frac - from_frac), 0, 1),      progress = step / (num_steps - 1)
        value = end + (start - end) * (1 + cos(pi * fraction)) / 2

    Slow at both ends, steepest in the middle; ``from_frac = until_frac`` is a jump.

    Shape: one number a step; unit of the target.
    """

    about: ClassVar[About] = About(source="common practice", status="published")

    target: str = "regularizer.entropy_bonus.coef"
    start: float = 0.001
    """Value at the start of the run."""
    end: float = 0.0
    """Value at its end."""
    from_frac: float = 0.0
    """Share of the run after which the value begins to move."""
    until_frac: float = 1.0
    """Share of the run at which it has arrived."""

    def __post_init__(self) -> None:
        require_span("cosine", self.from_frac, self.until_frac)

    def value(self, state: State, context: Context) -> float:
        fraction = ramp_fraction(context.progress, self.from_frac, self.until_frac)
        return interpolate(self.start, self.end, fraction, "cosine")
