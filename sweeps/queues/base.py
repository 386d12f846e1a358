"""What a queue promises to the launcher.

Implemented by :mod:`sweeps.queues.local` and :mod:`sweeps.queues.slurm`; used by :mod:`sweeps.launch`. The states of
runs are not its business: those are in the run folders.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sweeps.queues.worker import Job
from trainer.contract.config import ConfigError, component_defaults
from trainer.contract.run_folder import ask_to_stop
from trainer.contract.settings import filled
from trainer.contract.status import UNFINISHED, read_status


class Pool(Protocol):
    """Jobs that were handed to a queue."""

    def poll(self) -> bool:
        """Start what has room; False once nothing runs and nothing waits."""

    def add(self, job: Job) -> None:
        """Hand over one more job."""

    def has(self, job: Job) -> bool:
        """Whether a job that was handed over still waits or runs."""

    def stop(self, *, running: bool = True) -> None:
        """Start nothing further; with ``running`` cancel all: what runs saves and leaves, or is killed."""

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

    @property
    def devices(self) -> int:
        """GPUs that a job holds; 0 on CPUs."""

    @property
    def here(self) -> bool:
        """Whether jobs run on this machine."""

    @property
    def spreads(self) -> bool:
        """Whether jobs may run on several machines."""

    def fitted(self, runs: Sequence[Mapping[str, Any]]) -> Queue:
        """This queue with as many jobs at the same time as have room for these frozen configurations."""

    def job_size(self, num_runs: int) -> int:
        """Runs that one job should serve when there are ``num_runs``."""

    def require_available(self) -> None:
        """Raise ConfigError when this queue cannot be used from here."""

    def require_room_for(self, ranks: int) -> None:
        """Raise ConfigError when a job of this queue cannot hold a run of so many processes on GPUs."""

    def open(self, folder: Path, jobs: Sequence[Job]) -> Pool:
        """Hand ``jobs`` over; ``folder`` keeps Submitit's files."""


def cancel_runs(jobs: Sequence[Job]) -> None:
    """Ask every run of these jobs that has not ended to stop, for a person."""
    for run_dir in (Path(run_dir) for job in jobs for run_dir in job.run_dirs):
        status = read_status(run_dir)
        if status is not None and status.state in UNFINISHED:
            ask_to_stop(run_dir)


def open_queue(settings: Mapping[str, Any], runs: Sequence[Mapping[str, Any]] = ()) -> Queue:
    """The chosen ``launcher``, its values checked, with slots for ``runs`` (frozen configurations).

    Raises :class:`ConfigError`.
    """
    module, _, name = str(settings["_target_"]).rpartition(".")
    if not module.startswith("sweeps.queues."):
        raise ConfigError(
            f"launcher._target_={settings['_target_']!r} is not a queue of this project: "
            "use launcher=local or launcher=slurm"
        )
    component_defaults(str(settings["_target_"]))  # refuses a class that is not there
    kind = getattr(importlib.import_module(module), name)
    queue: Queue = filled(kind, {key: value for key, value in settings.items() if key != "_target_"}, "launcher")
    return queue.fitted(runs) if runs else queue


def job_fields(queue: Any) -> dict[str, Any]:
    """What a queue's settings say about every :class:`~sweeps.queues.worker.Job`."""
    return {"trainer": tuple(queue.trainer), "grace_s": float(queue.grace_s)}
