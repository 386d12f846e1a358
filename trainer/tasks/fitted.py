"""A task without the prompts that exceed a model's context. Created by :mod:`trainer.setup.examine`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.batch.types import Prompt, Verdict
from trainer.tasks.base import Task, verify_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """``task`` without the prompts whose ids are in ``left_out``."""

    task: Task
    left_out: frozenset[str] = frozenset()

    def train_prompts(self) -> list[Prompt]:
        """Those that fit."""
        return self._fitting(self.task.train_prompts())

    def suites(self) -> dict[str, list[Prompt]]:
        """Those that fit."""
        return {name: self._fitting(prompts) for name, prompts in self.task.suites().items()}

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """As the task does."""
        return self.task.verify(prompt, text)

    def verify_all(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """As the task does."""
        return verify_all(self.task, pairs)

    def expert(self, prompt: Prompt) -> str | None:
        """As the task does."""
        return self.task.expert(prompt)

    def notes(self) -> list[str]:
        """As the task has."""
        return self.task.notes()

    def _fitting(self, prompts: list[Prompt]) -> list[Prompt]:
        return [prompt for prompt in prompts if prompt.id not in self.left_out]
