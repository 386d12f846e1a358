"""The protocol of a verifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable


@runtime_checkable
class Verifier(Protocol):
    """A frozen dataclass whose fields are its settings."""

    @property
    def weight(self) -> float:
        """Factor of the score in the reward."""
        ...

    def score(self, response: str, data: Mapping[str, object]) -> float:
        """How good a response is, -1 to 1. ``data`` is what the task keeps of the problem: ``question``, ``answer``,
        maybe ``solution``.

        It may take its time, raise or crash: it then scores 0, is counted, and the run goes on.
        """
        ...
