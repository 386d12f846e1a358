"""The interface of a queue, implemented by :mod:`sweeps.queues.local` and :mod:`sweeps.queues.slurm`.

A queue takes jobs, each of which trains one or several runs, and starts them as slots become free. The configuration
group ``launcher`` names the class and its settings; "the launcher" in a message to the user is the process of
``sweep.py``, which hands jobs to the queue. A queue knows nothing of the states of runs: those are in the run folders.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sweeps.queues.worker import Job
from trainer.contract.component_source import component_defaults
from trainer.contract.run_folder import ask_to_stop
from trainer.contract.settings import ConfigError, filled
from trainer.contract.status import UNFINISHED, read_status


class Pool(Protocol):
    """The jobs that one process has handed to a queue."""

    def poll(self) -> bool:
        """Start waiting jobs if slots are free; False once no job waits or runs."""

    def add(self, job: Job) -> None:
        """Hand over one more job."""

    def has(self, job: Job) -> bool:
        """Whether a job that was handed over still waits or runs."""

    def stop(self, *, running: bool = True) -> None:
        """Cancel the waiting jobs; with ``running`` also the running ones, which save a checkpoint or are killed."""

    def leave(self) -> None:
        """Stop managing the jobs: running ones continue without this process."""


class Queue(Protocol):
    """The settings of a ``launcher`` choice, and what follows from them."""

    @property
    def trainer(self) -> tuple[str, ...]:
        """Arguments after the Python executable that start the trainer."""

    @property
    def detach(self) -> bool:
        """Whether ``sweep.py`` ends once all jobs are queued."""

    @property
    def concurrency(self) -> int:
        """Jobs that run at the same time."""

    @property
    def num_gpus(self) -> int:
        """GPUs that a job holds; 0 on CPUs."""

    @property
    def is_local(self) -> bool:
        """Whether jobs run on this machine."""

    @property
    def multi_node(self) -> bool:
        """Whether jobs may run on several machines."""

    def with_slots_for(self, runs: Sequence[Mapping[str, Any]]) -> Queue:
        """This queue with as many slots as these configurations fit on the machine side by side."""

    def job_size(self, num_runs: int) -> int:
        """Runs per job when there are ``num_runs`` in all."""

    def require_available(self) -> None:
        """Raise ConfigError when this queue cannot be used from here."""

    def require_room_for(self, ranks: int) -> None:
        """Raise ConfigError when a job of this queue has fewer GPUs than a run has ranks."""

    def open(self, folder: Path, jobs: Sequence[Job]) -> Pool:
        """Queue ``jobs``; Submitit's files go to ``folder``."""


def cancel_runs(jobs: Sequence[Job]) -> None:
    """Ask every unfinished run of these jobs to stop because the user cancelled it."""
    for run_dir in (Path(run_dir) for job in jobs for run_dir in job.run_dirs):
        status = read_status(run_dir)
        if status is not None and status.state in UNFINISHED:
            ask_to_stop(run_dir)


def open_queue(settings: Mapping[str, Any], runs: Sequence[Mapping[str, Any]] = ()) -> Queue:
    """The queue of a ``launcher`` node, its values checked, with as many slots as ``runs`` (configurations) allow.

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
    return queue.with_slots_for(runs) if runs else queue


def job_fields(queue: Any) -> dict[str, Any]:
    """The fields of a :class:`~sweeps.queues.worker.Job` that are settings of its queue."""
    return {"trainer": tuple(queue.trainer), "grace_s": float(queue.grace_s)}
