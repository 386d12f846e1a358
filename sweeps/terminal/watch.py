"""Waits while cells run, shows their progress, and ends when none of them is alive any more."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sweeps.queues.base import Pool
from sweeps.queues.liveness import close_dead, is_alive
from sweeps.queues.scheduler import Scheduler, ask
from sweeps.queues.slurm import ASK_EVERY_S
from sweeps.runs.progress import Followed
from sweeps.terminal.progress import Display
from trainer.contract.status import UNFINISHED, read_status

LOOK_EVERY_S = 0.5
LOOKING_SHARE = 10
"""Looking at very many runs may take this part of the launcher's time."""


def watch(runs: Sequence[Followed], pool: Pool | None, *, done_before: int, concurrency: int) -> bool:
    """Show progress until every run has ended; False if a person interrupted it."""
    display = Display(runs, done_before=done_before, concurrency=concurrency)
    run_dirs = [run.run_dir for run in runs]
    others = _Others(run_dirs)
    closed = time.monotonic()
    try:
        while (pool is not None and pool.poll()) or others.at_work():
            start = time.monotonic()
            if start - closed > ASK_EVERY_S:
                close_dead(run_dirs)
                closed = time.monotonic()
            display.update()
            time.sleep(max(LOOK_EVERY_S, LOOKING_SHARE * (time.monotonic() - start)))
        close_dead(run_dirs, over=True)
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
        self._scheduler: Scheduler | None = None
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
            self._scheduler, self._asked = ask(), time.monotonic()
        return any(is_alive(run_dir, status, self._scheduler) for run_dir, status in waiting)


QUESTION = """
interrupted: [l]eave running and waiting cells as they are, stop the [w]aiting ones, or stop [a]ll, the running ones
after their step? [l] """


def interrupted(pool: Pool | None, again: str) -> None:
    """After Ctrl-C: ask once what becomes of running and waiting cells, and say how to come back (``again``).

    Whatever is not a clear answer leaves the cells alone, and so does the want of a terminal.
    """
    answer = "l"
    if pool is not None and sys.stdin.isatty():
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            answer = input(QUESTION).strip().lower()[:1]
    if pool is not None and answer in ("w", "a"):
        print("stopping: each running cell finishes its step and saves" if answer == "a" else "stopping what waits")
        pool.stop(running=answer == "a")
    elif pool is not None:
        pool.leave()
        print("left as they are: running cells go on without this launcher")
    print(again, flush=True)
