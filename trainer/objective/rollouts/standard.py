"""Every prompt of the step is sampled ``group_size`` times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trainer.contract.about import About
from trainer.objective.rollouts.base import RolloutPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard(RolloutPlan):
    """P prompts, G samples each, all kept; the temperature is constant or moves from one value to another."""

    about: ClassVar[About] = About(source="common practice", status="published")

    prompts_per_step: int = 32
    """P: prompts in one rollout batch."""
    group_size: int = 16
    """G: samples per prompt."""
    temperature: float = 1.0
    """Divides the logits, in the sampler and in the trainer alike."""
    temperature_end: float | None = None
    """Temperature of the last step; None: ``temperature`` throughout. Entropy is measured at the step's own."""
    temperature_curve: Literal["linear", "cosine"] = "linear"
    """The way from the one to the other."""
    max_tokens: int = 40
    """Longest response, tokens."""
