"""Whether a run is alive, by its lock, process, heartbeat and Slurm job; and the state to record if it is not.

The first three are in :mod:`trainer.contract.liveness`. A run counts as dead only if all of them say so; where one
cannot be determined, the run counts as alive.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sweeps.queues.scheduler import Scheduler, ask
from trainer.contract import liveness
from trainer.contract.liveness import is_slurm, job_of, lock
from trainer.contract.run_folder import stop_request
from trainer.contract.status import UNFINISHED, Status, read_status, write_status

ENDS = {
    "CANCELLED": ("CANCELLED", "its Slurm job was cancelled"),
    "TIMEOUT": ("LOST", "its Slurm job reached its time limit"),
    "OUT_OF_MEMORY": ("LOST", "its Slurm job ran out of memory"),
    "NODE_FAIL": ("LOST", "the node of its Slurm job failed"),
}
"""State and message of a run, by the state in which its job ended."""


def is_alive(run_dir: Path, status: Status, scheduler: Scheduler | None) -> bool:
    """Whether a process or job may be working on this run. ``scheduler`` is None when Slurm could not be asked."""
    return alive_or_unknown(run_dir, status, scheduler) is not False


def alive_or_unknown(run_dir: Path, status: Status, scheduler: Scheduler | None) -> bool | None:
    """:func:`is_alive`, or None where it cannot be determined from this machine."""
    return liveness.is_alive(run_dir, status, lambda job: scheduler.has(job) if scheduler is not None else None)


def record_dead_runs(run_dirs: Sequence[Path], *, queue_drained: bool = False) -> list[Path]:
    """Record the state of every dead run whose status says that it is unfinished; returns the runs that ended.

    CANCELLED if a stop was requested, LOST if its job vanished, PLANNED if no job ever started it. ``queue_drained``:
    this process starts no further jobs, so runs that it has queued count as dead.
    """
    unfinished = [(path, status) for path in run_dirs if (status := read_status(path)) and status.state in UNFINISHED]
    scheduler = ask() if any(is_slurm(job_of(run_dir, status)) for run_dir, status in unfinished) else None
    ended = []
    for run_dir, status in unfinished:
        queued_here = queue_drained and status.state == "QUEUED" and status.job is None and status.pid == os.getpid()
        if not queued_here and is_alive(run_dir, status, scheduler):
            continue
        run_lock = lock(run_dir, patience_s=0.0)
        if run_lock is None:
            continue
        with run_lock:
            state, message = _end(run_dir, status, scheduler)
            if state != status.state and read_status(run_dir) == status:
                write_status(run_dir, state, message=message)
                ended += [run_dir] if state != "PLANNED" else []
    return ended


def _end(run_dir: Path, status: Status, scheduler: Scheduler | None) -> tuple[str, str | None]:
    if stop_request(run_dir) is not None:
        return "CANCELLED", "cancelled"
    job = job_of(run_dir, status)
    if is_slurm(job) and scheduler is not None:
        default = "LOST", "its Slurm job has gone without a word"
        return ENDS.get(scheduler.end_of(str(job)) or "", default)
    if status.state == "PREEMPTED":
        return status.state, status.message  # saved and waiting for a launcher: nothing is lost
    if job is None and status.state == "QUEUED":
        return "PLANNED", "its launcher went before a job had it"
    return "LOST", "its process ended without a word (killed, or out of memory)"
