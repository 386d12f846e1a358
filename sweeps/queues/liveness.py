"""Whether a run is alive, including what Slurm says of its job, and the state of a run that is not: LOST.

Lock, process and heartbeat are in :mod:`trainer.contract.liveness`. A run is LOST only if none of them, nor the
scheduler, speaks for it; where one cannot be asked, the run counts as alive.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sweeps.queues.scheduler import Scheduler, ask
from trainer.contract import liveness
from trainer.contract.liveness import is_slurm, job_of, lock
from trainer.contract.run_folder import stop_asked
from trainer.contract.status import UNFINISHED, Status, read_status, write_status

ENDS = {
    "CANCELLED": ("CANCELLED", "its Slurm job was cancelled"),
    "TIMEOUT": ("LOST", "its Slurm job reached its time limit"),
    "OUT_OF_MEMORY": ("LOST", "its Slurm job ran out of memory"),
    "NODE_FAIL": ("LOST", "the node of its Slurm job failed"),
}
"""State and message of a run, by the state in which its job ended."""


def is_alive(run_dir: Path, status: Status, scheduler: Scheduler | None) -> bool:
    """Whether somebody may be going to move this run on. ``scheduler`` is None when Slurm could not be asked."""
    return is_surely_alive(run_dir, status, scheduler) is not False


def is_surely_alive(run_dir: Path, status: Status, scheduler: Scheduler | None) -> bool | None:
    """:func:`is_alive` where it is known; None where nobody here can tell."""
    return liveness.is_alive(run_dir, status, lambda job: scheduler.has(job) if scheduler is not None else None)


def close_dead(run_dirs: Sequence[Path], *, over: bool = False) -> list[Path]:
    """Write down the end of every run that claims to go on while nobody is at work on it; returns those that ended.

    CANCELLED where somebody asked for it, LOST where a job vanished, PLANNED again where no job ever had the run.
    ``over`` says that this very process starts nothing any more, so what still waits for it waits for nobody.
    """
    claims = [(path, status) for path in run_dirs if (status := read_status(path)) and status.state in UNFINISHED]
    scheduler = ask() if any(is_slurm(job_of(run_dir, status)) for run_dir, status in claims) else None
    closed = []
    for run_dir, status in claims:
        waits_for_us = over and status.state == "QUEUED" and status.job is None and status.pid == os.getpid()
        if not waits_for_us and is_alive(run_dir, status, scheduler):
            continue
        held = lock(run_dir, patience_s=0.0)
        if held is None:
            continue
        with held:
            state, message = _end(run_dir, status, scheduler)
            if state != status.state and read_status(run_dir) == status:
                write_status(run_dir, state, message=message)
                closed += [run_dir] if state != "PLANNED" else []
    return closed


def _end(run_dir: Path, status: Status, scheduler: Scheduler | None) -> tuple[str, str | None]:
    if stop_asked(run_dir) is not None:
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
