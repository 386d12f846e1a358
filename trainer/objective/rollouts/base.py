"""What a rollout component is given and what it returns. Called by ``loop.py`` once per step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from trainer.objective.base import Concern
from trainer.types import Prompt, Rollout

if TYPE_CHECKING:
    from trainer.build import Run


class Source(Protocol):
    """Where prompts and verified samples come from (see ``trainer.sampling.Sampler``)."""

    def next_prompts(self, count: int) -> list[Prompt]:
        """The next training prompts in the run's own order; epochs follow one another."""
        ...

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        samples: int,
        temperature: float,
        max_tokens: int,
        purpose: str = "rollout",
        prefixes: Sequence[tuple[int, ...]] | None = None,
    ) -> list[Rollout]:
        """Verified rollouts, ``samples`` per prompt, ``group`` numbered by prompt; ``prefixes`` are given completion
        tokens."""
        ...

    def entropies(self, rollouts: Sequence[Rollout]) -> list[tuple[float, ...]]:
        """Full-vocabulary entropy of the sampling policy at every completion token, nats; one forward pass."""
        ...

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token alone; empty for special tokens."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """Settings that every way of collecting rollouts has."""

    reconstructed: ClassVar[bool] = False
    prompts_per_step: int = 32
    group_size: int = 16
    temperature: float = 1.0
    max_tokens: int = 40

    def temperature_at(self, step: int, num_steps: int) -> float:
        """The sampling temperature of a step; the trainer divides its logits by the same number."""
        return self.temperature

    def concerns(self, run: Run) -> Iterator[Concern]:
        """What is wrong or surprising about this plan in this run, before anything is queued."""
        return iter(())

    def collect(self, source: Source, *, step: int, num_steps: int) -> list[Rollout]:
        """The rollouts of one step, groups numbered from 0 without gaps."""
        raise TypeError(f"{type(self).__name__} does not define collect")
