"""Every prompt of the step is sampled ``group_size`` times. Called through the ``rollout`` slot."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.config import require
from trainer.objective.rollouts.base import RolloutPlan, Source
from trainer.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard(RolloutPlan):
    """P prompts, G samples each, all kept."""

    prompts_per_step: int = 32
    """P: prompts in one rollout batch."""
    group_size: int = 16
    """G: samples per prompt."""
    temperature: float = 1.0
    """Divides the logits, in the sampler and in the trainer alike."""
    max_tokens: int = 40
    """Longest response, tokens."""

    def __post_init__(self) -> None:
        require(
            self.prompts_per_step >= 1,
            "rollout.prompts_per_step",
            self.prompts_per_step,
            "at least one prompt is needed",
        )
        require(self.group_size >= 1, "rollout.group_size", self.group_size, "at least one sample per prompt is needed")
        require(
            0 < self.temperature <= 100,
            "rollout.temperature",
            self.temperature,
            "give a temperature above 0 (and at most 100)",
        )
        require(
            self.max_tokens >= 1, "rollout.max_tokens", self.max_tokens, "a response needs room for at least one token"
        )

    def collect(self, source: Source, *, step: int, num_steps: int) -> list[Rollout]:
        return source.sample(
            source.next_prompts(self.prompts_per_step),
            samples=self.group_size,
            temperature=self.temperature_at(step, num_steps),
            max_tokens=self.max_tokens,
        )
