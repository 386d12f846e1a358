"""A queue whose jobs are threads: a search of dozens of trials in seconds, the driver as it is.

The job is a real :class:`sweeps.search.job.TrialJob` as far as it judges; only its training is simulated.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from landscape import measured

from sweeps.queues.worker import Job
from sweeps.runs.run_folder import read_run
from sweeps.search.job import TrialJob, _note_end, _PruningWatcher, _watched
from trainer.contract.status import read_status, write_status


class SimulatedPool:
    """See :class:`sweeps.queues.base.Pool`."""

    step_s = 0.01
    most = 0
    """Jobs that ran at one time, at most, over all pools."""
    trained: list[tuple[str, int]] = []  # noqa: RUF012
    """(run, step) of every step, in the order they were made."""

    def __init__(self, slots: int, jobs: Sequence[Job]) -> None:
        self._slots, self._waiting, self._running = slots, deque(jobs), dict[threading.Thread, Job]()

    def poll(self) -> bool:
        self._running = {thread: job for thread, job in self._running.items() if thread.is_alive()}
        while self._waiting and len(self._running) < self._slots:
            job = self._waiting.popleft()
            thread = threading.Thread(target=work, args=(job,), daemon=True)
            self._running[thread] = job
            thread.start()
        type(self).most = max(self.most, len(self._running))
        return bool(self._running)

    def add(self, job: Job) -> None:
        self._waiting.append(job)

    def has(self, job: Job) -> bool:
        alive = [item for thread, item in self._running.items() if thread.is_alive()]
        return any(item is job for item in [*self._waiting, *alive])

    def stop(self, *, running: bool = True) -> None:
        self._waiting.clear()

    def leave(self) -> None:
        self._waiting.clear()


def work(job: Job) -> None:
    """What the worker and the trainer do."""
    if not isinstance(job, TrialJob):
        return _train(job)
    try:
        with _watched(_PruningWatcher(job)):
            _train(job)
    finally:
        for run_dir in map(Path, job.run_dirs):
            _note_end(run_dir, job.name)


def _train(job: Job) -> None:
    for run_dir in map(Path, job.run_dirs):
        status = read_status(run_dir)
        if status is None or status.state != "COMPLETED":
            train(run_dir)


def train(run_dir: Path) -> None:
    """One run, from where its record ends."""
    config, metrics = read_run(run_dir), run_dir / "metrics.jsonl"
    steps, here = int(config["steps"]), {"pid": os.getpid(), "host": "simulated", "message": None}
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    for step in range(done, steps):
        if (run_dir / "STOP").exists():
            write_status(run_dir, "PRUNED", step=step, **here)
            return
        time.sleep(SimulatedPool.step_s)
        SimulatedPool.trained.append((run_dir.name, step))
        with metrics.open("a") as file:
            file.write(json.dumps({"step": step, "metrics": measured(config, step)}) + "\n")
        write_status(run_dir, "RUNNING", step=step + 1, steps=steps, **here)
        if config["surrogate"].get("clip_low") == 0.77 and step >= 1 and step + 1 < steps:
            write_status(run_dir, "FAILED", **here | {"message": "it broke"})
            return
    write_status(run_dir, "COMPLETED", step=steps, **here)
