"""Whether anybody is going to move a run on, and what a run is called of which nobody will.

Called by everything that plans, shows or ends runs. Four witnesses: the lock of the run folder, the scheduler, the
process, the heartbeat. A run is given up only when they all deny it; what cannot be known counts as alive.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from sweeps.queues.scheduler import Scheduler, ask
from sweeps.runs import UNFINISHED, Status, is_locked, last_job, lock, read_status, write_status

BEAT_S = 10.0
"""Seconds between two heartbeats of a job."""

SILENT_S = 60.0
"""Age from which a heartbeat says nothing any more: it outlasts what network file systems keep in their caches."""

ENDS = {
    "CANCELLED": ("CANCELLED", "its Slurm job was cancelled"),
    "TIMEOUT": ("LOST", "its Slurm job reached its time limit"),
    "OUT_OF_MEMORY": ("LOST", "its Slurm job ran out of memory"),
    "NODE_FAIL": ("LOST", "the node of its Slurm job failed"),
}
"""State and message of a run, by the state in which its job ended."""


def beat(run_dir: Path) -> None:
    """Leave a sign of life."""
    path, now = run_dir / "heartbeat", time.time()
    path.touch()
    os.utime(path, (now, now))


def silent_s(run_dir: Path) -> float | None:
    """Seconds since the last sign of life of a run's job; None before the first."""
    try:
        return max(0.0, time.time() - (run_dir / "heartbeat").stat().st_mtime)
    except FileNotFoundError:
        return None


def is_alive(run_dir: Path, status: Status, scheduler: Scheduler | None) -> bool:
    """Whether somebody may be going to move this run on. ``scheduler`` is None when Slurm could not be asked."""
    return is_surely_alive(run_dir, status, scheduler) is not False


def is_surely_alive(run_dir: Path, status: Status, scheduler: Scheduler | None) -> bool | None:
    """:func:`is_alive` where it is known; None where nobody here can tell."""
    if status.state not in UNFINISHED:
        return False
    if is_locked(run_dir):
        return True
    if (run_dir / "status.json").exists() and (run_dir / "status.json").stat().st_uid != os.geteuid():
        return None  # squeue and the kernel answer for our own jobs only
    here = status.host == socket.gethostname()
    job = job_of(run_dir, status)
    if job is not None and _is_slurm(job):
        # Locks do not reach through every network file system, so a job elsewhere that still beats is believed.
        listed = scheduler.has(job) if scheduler is not None else None
        return True if listed is False and not here and _beats(run_dir) else listed
    if status.state == "PREEMPTED":  # only a scheduler takes a run up again by itself
        return False
    if not here:
        return True if _beats(run_dir) else None
    return status.pid is not None and _is_ours(status.pid)


def job_of(run_dir: Path, status: Status) -> str | None:
    """The queue's name for the job that has a run. While QUEUED that is not the one of an earlier attempt."""
    return status.job if status.state == "QUEUED" else status.job or last_job(run_dir)


def close_dead(run_dirs: Sequence[Path], *, over: bool = False) -> list[Path]:
    """Write down the end of every run that claims to go on while nobody is at work on it; returns those that ended.

    CANCELLED where somebody asked for it, LOST where a job vanished, PLANNED again where no job ever had the run.
    ``over`` says that this very process starts nothing any more, so what still waits for it waits for nobody.
    """
    claims = [(path, status) for path in run_dirs if (status := read_status(path)) and status.state in UNFINISHED]
    scheduler = ask() if any(_is_slurm(job_of(run_dir, status)) for run_dir, status in claims) else None
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
    if (run_dir / "STOP").exists():
        return "CANCELLED", "cancelled"
    job = job_of(run_dir, status)
    if _is_slurm(job) and scheduler is not None:
        default = "LOST", "its Slurm job has gone without a word"
        return ENDS.get(scheduler.end_of(str(job)) or "", default)
    if status.state == "PREEMPTED":
        return status.state, status.message  # saved and waiting for a launcher: nothing is lost
    if job is None and status.state == "QUEUED":
        return "PLANNED", "its launcher went before a job had it"
    return "LOST", "its process ended without a word (killed, or out of memory)"


def _is_slurm(job: str | None) -> bool:
    return job is not None and job.startswith("slurm:")


def _beats(run_dir: Path) -> bool:
    silence = silent_s(run_dir)
    return silence is not None and silence < SILENT_S


def _is_ours(pid: int) -> bool:
    """Whether process ``pid`` is a launcher or trainer, and not a stranger that got its number later."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # another user's process cannot be the one that wrote into our folder
    command = Path(f"/proc/{pid}/cmdline")
    if not command.exists():
        return True
    words = command.read_bytes().decode(errors="replace").split("\0")
    return any(word.endswith(("sweep.py", "sweeps")) or word == "trainer" for word in words)
