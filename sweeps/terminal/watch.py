"""Shows the progress of a sweep until every run has ended, and asks what to do after Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sweeps.queues.base import Pool
from sweeps.queues.liveness import is_alive, record_dead_runs
from sweeps.queues.scheduler import Scheduler, ask
from sweeps.queues.slurm import ASK_EVERY_S
from sweeps.runs.progress import RunProgress
from sweeps.terminal.progress import Display
from trainer.contract.status import UNFINISHED, read_status

LOOK_EVERY_S = 0.5
LOOKING_SHARE = 10
"""The pause between two readings is at least this many times the duration of a reading."""


def watch(runs: Sequence[RunProgress], pool: Pool | None, *, done_before: int, concurrency: int) -> bool:
    """Show progress until every run has ended; False after Ctrl-C."""
    display = Display(runs, done_before=done_before, concurrency=concurrency)
    run_dirs = [run.run_dir for run in runs]
    other_jobs = _OtherJobs(run_dirs)
    last_check = time.monotonic()
    try:
        while (pool is not None and pool.poll()) or other_jobs.any_alive():
            start = time.monotonic()
            if start - last_check > ASK_EVERY_S:
                record_dead_runs(run_dirs)
                last_check = time.monotonic()
            display.update()
            time.sleep(max(LOOK_EVERY_S, LOOKING_SHARE * (time.monotonic() - start)))
        record_dead_runs(run_dirs, queue_drained=True)
        display.update()
        return True
    except KeyboardInterrupt:
        return False
    finally:
        display.close()


class _OtherJobs:
    """Runs of this sweep that jobs of other processes train."""

    def __init__(self, run_dirs: Sequence[Path]) -> None:
        self._run_dirs = run_dirs
        self._scheduler: Scheduler | None = None
        self._asked = float("-inf")

    def any_alive(self) -> bool:
        """Whether any of the runs is alive; the own queue is empty, so runs queued by this process are not."""
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


def ask_after_interrupt(pool: Pool | None, how_to_resume: str) -> None:
    """After Ctrl-C: ask once what to do with running and waiting cells, then print ``how_to_resume``.

    Without a terminal or a clear answer the cells are left as they are.
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
    print(how_to_resume, flush=True)
