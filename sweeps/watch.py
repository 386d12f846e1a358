"""Stands by while cells run: shows progress, and knows when nobody is at work on any of them.

Called by :mod:`sweeps.launch` once everything is queued.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from sweeps.display import Display
from sweeps.follow import Followed
from sweeps.queues.base import Pool
from sweeps.queues.slurm import ASK_EVERY_S, living_jobs
from sweeps.runs import UNFINISHED, is_alive, read_status

LOOK_EVERY_S = 0.5


def watch(runs: Sequence[Followed], pool: Pool | None, *, done_before: int, concurrency: int) -> bool:
    """Show progress until every run has ended; False if a person interrupted it."""
    display = Display(runs, done_before=done_before, concurrency=concurrency)
    others = _Others([run.run_dir for run in runs])
    try:
        while (pool is not None and pool.poll()) or others.at_work():
            display.update()
            time.sleep(LOOK_EVERY_S)
        display.update()
        return True
    except KeyboardInterrupt:
        return False
    finally:
        display.close()


class _Others:
    """Runs that a job of somebody else is at work on, once our own queue is empty."""

    def __init__(self, run_dirs: Sequence[Path]) -> None:
        self._run_dirs = run_dirs
        self._jobs: Collection[str] | None = None
        self._asked = float("-inf")

    def at_work(self) -> bool:
        """Whether any run lives. One that waits for this very process does not: its job has ended without it."""
        statuses = [(run_dir, read_status(run_dir)) for run_dir in self._run_dirs]
        waiting = [
            (run_dir, status)
            for run_dir, status in statuses
            if status is not None and status.state in UNFINISHED and status.pid != os.getpid()
        ]
        if waiting and time.monotonic() - self._asked > ASK_EVERY_S:
            self._jobs, self._asked = living_jobs(), time.monotonic()
        return any(is_alive(run_dir, status, self._jobs) for run_dir, status in waiting)


def interrupted(pool: Pool | None, command: str) -> None:
    """After Ctrl-C: ask once what becomes of running cells; without a terminal they go on."""
    stop = False
    if pool is not None and sys.stdin.isatty():
        question = "\ninterrupted: [s]top the running cells after their step, or [l]eave them running? [s] "
        try:
            stop = not input(question).strip().lower().startswith("l")
        except (EOFError, KeyboardInterrupt):
            stop = True
    if pool is not None and stop:
        print("stopping: each running cell finishes its step and saves", flush=True)
        pool.stop()
    elif pool is not None:
        pool.leave()
    print(f"to go on, start the same sweep again: {command}")
