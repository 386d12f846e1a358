"""The protocol of a task: prompts to train on, suites to evaluate on, a verifier.

A task must not sample, order or batch prompts: the run seed does that elsewhere, so that every seed of a cell works
on the same problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from trainer.batch.types import Prompt, Verdict


@runtime_checkable
class Task(Protocol):
    """A source of prompts with a verifiable reward. Implementations are frozen dataclasses."""

    def train_prompts(self) -> list[Prompt]:
        """The distinct training prompts, always in the same order; ids are unique over the whole task."""
        ...

    def suites(self) -> dict[str, list[Prompt]]:
        """Evaluation prompts by suite name; ``heldout`` and ``ood`` where the task has them."""
        ...

    def notes(self) -> list[str]:
        """Sentences on the data that a person should read before training: what was left out, what occurs twice."""
        ...

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """Judge one response. Never raises on any ``text``: what cannot be read scores 0, and so does what cannot be
        compared, which is not :attr:`Verdict.comparable`."""
        ...

    def expert(self, prompt: Prompt) -> str | None:
        """A correct response to a training prompt, or None where the task knows none."""
        ...


@runtime_checkable
class BatchTask(Task, Protocol):
    """A task that judges many responses faster than one after another."""

    def verify_all(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """What :meth:`verify` gives for each pair."""
        ...


def verify_all(task: Task, pairs: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
    """The verdict on each response to a prompt, in parallel where the task can."""
    if isinstance(task, BatchTask):
        return task.verify_all(pairs)
    return [task.verify(prompt, text) for prompt, text in pairs]
