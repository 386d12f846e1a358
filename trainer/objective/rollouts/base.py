"""What a rollout component is given and what it returns. It must not look at weights or advantages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from trainer.batch.types import Prompt, Rollout
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Diagnostic
from trainer.objective.controllers.ramp import Curve, interpolate

MOST_RESPONSES = 2**20
"""Of one step; a batch of more is surely a slip."""

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


class Source(Protocol):
    """Where prompts and verified samples come from (see ``trainer.rollout.sampler.Sampler``)."""

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
        tokens, which count towards ``max_tokens``."""
        ...

    def entropies(self, rollouts: Sequence[Rollout], *, temperature: float) -> list[tuple[float, ...]]:
        """Full-vocabulary entropy of the sampling policy at every completion token, nats; one forward pass."""
        ...

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token alone; empty for special tokens."""
        ...

    def generator(self, purpose: str) -> torch.Generator:
        """A generator for choices between two calls of :meth:`sample`: another one in every step and after every
        call."""
        ...


Groups = list[list[Rollout]]
"""Rollouts by prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """Settings that every way of collecting rollouts has, and the plain way: P prompts, G samples each, all kept.

        temperature_t = temperature + (temperature_end - temperature) * progress                     linear
        temperature_t = temperature_end + (temperature - temperature_end) * (1 + cos(pi progress)) / 2   cosine

    with ``progress`` from 0 at the first step to 1 at the last; ``temperature_end=None`` keeps it constant. A member
    overrides :meth:`groups_of` (how the samples of some prompts come about) or :meth:`collect` (which of them are
    kept), and declares all settings in its own body, where configurations read their defaults.
    """

    about: ClassVar[About]
    """Source, status and departures; every member states its own."""
    prompts_per_step: int = 32
    group_size: int = 16
    temperature: float = 1.0
    temperature_end: float | None = None
    temperature_curve: Curve = "linear"
    max_tokens: int = 40

    def __post_init__(self) -> None:
        prompts, size, length = self.prompts_per_step, self.group_size, self.max_tokens
        require(prompts >= 1, "rollout.prompts_per_step", prompts, "at least one prompt is needed")
        require(size >= 1, "rollout.group_size", size, "at least one sample per prompt is needed")
        for name in ("temperature", "temperature_end"):
            value = getattr(self, name)
            fits = value is None or 0 < value <= 100
            require(fits, f"rollout.{name}", value, "give a temperature above 0 (and at most 100)")
        remedy = f"rollout.prompts_per_step={prompts} times that is over {MOST_RESPONSES} responses a step: give less"
        require(prompts * size <= MOST_RESPONSES, "rollout.group_size", size, remedy)
        require(length >= 1, "rollout.max_tokens", length, "a response needs room for at least one token")

    def temperature_at(self, step: int, num_steps: int) -> float:
        """The sampling temperature of a step; the trainer divides its logits by the same number."""
        if self.temperature_end is None:
            return self.temperature
        progress = step / max(num_steps - 1, 1)
        return interpolate(self.temperature, self.temperature_end, progress, self.temperature_curve)

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        """What is wrong or surprising about this plan in this run, before anything is queued."""
        return iter(())

    def groups_of(self, source: Source, prompts: Sequence[Prompt], temperature: float) -> Groups:
        """``group_size`` verified rollouts of each prompt, in the prompts' order."""
        return by_group(
            source.sample(prompts, samples=self.group_size, temperature=temperature, max_tokens=self.max_tokens)
        )

    def collect(self, source: Source, *, step: int, num_steps: int) -> list[Rollout]:
        """The rollouts of one step, groups numbered from 0 without gaps."""
        prompts = source.next_prompts(self.prompts_per_step)
        return numbered(self.groups_of(source, prompts, self.temperature_at(step, num_steps)))


def by_group(rollouts: Sequence[Rollout]) -> Groups:
    """Rollouts of equal ``group`` together, groups in ascending order, members in the order they came in."""
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group, []).append(rollout)
    return [groups[number] for number in sorted(groups)]


def numbered(groups: Groups) -> list[Rollout]:
    """The rollouts of some groups, ``group`` counted from 0."""
    return [replace(rollout, group=number) for number, group in enumerate(groups) for rollout in group]
