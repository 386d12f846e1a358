"""What a queue promises to the launcher.

Implemented by :mod:`sweeps.queues.local` and :mod:`sweeps.queues.slurm`; used by :mod:`sweeps.launch`. The states of runs are not its
business: those are in the run folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sweeps.worker import Job


class Pool(Protocol):
    """Jobs that were handed to a queue."""

    def poll(self) -> bool:
        """Start what has room; False once nothing runs and nothing waits."""

    def stop(self) -> None:
        """Start nothing further, ask what runs to save and leave, kill what does not; returns when all have gone."""

    def leave(self) -> None:
        """Start nothing further from here; what runs goes on without this process."""


class Queue(Protocol):
    """A ``launcher`` choice: frozen settings that can open a pool."""

    @property
    def trainer(self) -> tuple[str, ...]:
        """Arguments after the Python executable that start the trainer."""

    @property
    def detach(self) -> bool:
        """Whether to return once everything is queued."""

    @property
    def concurrency(self) -> int:
        """Jobs that run at the same time."""

    def job_size(self, num_runs: int) -> int:
        """Runs that one job should serve when there are ``num_runs``."""

    def require_available(self) -> None:
        """Raise ConfigError when this queue cannot be used from here."""

    def open(self, folder: Path, jobs: Sequence[Job]) -> Pool:
        """Hand ``jobs`` over; ``folder`` keeps Submitit's files."""


def job_fields(queue: Any) -> dict[str, Any]:
    """What a queue's settings say about every :class:`~sweeps.worker.Job`."""
    return {"trainer": tuple(queue.trainer), "grace_s": float(queue.grace_s)}
