"""``launcher=local``: jobs on this machine in a limited number of slots, each with its own session and GPUs.

Submitit's local executor would start all jobs at once, on GPU 0, in the process group of ``sweep.py``, and kill them
after an hour. Here its job format is kept, but the processes are started differently.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import submitit
from submitit.local.local import LocalJob

from sweeps.queues.base import cancel_runs
from sweeps.queues.gpus import visible_gpus
from sweeps.queues.machine import num_cores, num_slots
from sweeps.queues.processes import MARK, kill_marked
from sweeps.queues.worker import Job
from trainer.contract.liveness import BEAT_S, beat
from trainer.contract.paths import ROOT
from trainer.contract.settings import Range, require
from trainer.contract.status import UNFINISHED, read_status

FOREVER_MIN = 10 * 365 * 24 * 60
MAX_RUNS_PER_JOB = 12
"""Most runs per job on a CPU by default. More would save start-up time, but a crash restarts all runs of its job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalQueue:
    """Slots on this machine. ``hardware.num_threads`` says how many threads a run has; the slots fill the cores."""

    slots: Annotated[int, Range(1, 4096)] | None = None
    """Jobs at the same time. null: one per GPU; for runs on CPUs as many as cores and memory allow."""
    runs_per_job: Annotated[int, Range(1)] | None = None
    """Cells that share a process, so that its start-up is paid once. null: 1 on GPUs, up to 12 on a CPU."""
    gpus_per_job: Annotated[int, Range(1, 1024)] = 1
    """GPUs of one slot, where there are any."""
    detach: bool = False
    """Not for a local queue: its waiting jobs need the launcher."""
    grace_s: Annotated[float, Range(0, 86400)] = 30.0
    """Seconds a stopped run has to save before it is killed."""
    trainer: tuple[str, ...] = ("-m", "trainer")
    """Arguments after the Python executable that start the trainer."""

    def __post_init__(self) -> None:
        require(
            not self.detach,
            "launcher.detach",
            self.detach,
            "a local queue needs its launcher; use launcher=slurm or nohup",
        )
        require(bool(self.trainer), "launcher.trainer", list(self.trainer), "name what starts the trainer")

    @property
    def concurrency(self) -> int:
        return self.slots or max(1, len(visible_gpus()) // self.gpus_per_job)

    @property
    def num_gpus(self) -> int:
        return self.gpus_per_job if visible_gpus() else 0

    @property
    def is_local(self) -> bool:
        return True

    @property
    def multi_node(self) -> bool:
        return False

    def with_slots_for(self, runs: Sequence[Mapping[str, Any]]) -> LocalQueue:
        on_gpus = bool(visible_gpus()) and any(run["hardware"]["device"] != "cpu" for run in runs)
        return self if self.slots is not None or on_gpus else replace(self, slots=num_slots(runs))

    def job_size(self, num_runs: int) -> int:
        if self.runs_per_job is not None:
            return self.runs_per_job
        if visible_gpus():
            return 1
        rounds = math.ceil(num_runs / (MAX_RUNS_PER_JOB * self.concurrency))
        return max(1, math.ceil(num_runs / max(1, rounds * self.concurrency)))  # all slots end at about the same time

    def require_available(self) -> None:
        _gpu_sets(self.concurrency, self.gpus_per_job)

    def require_room_for(self, ranks: int) -> None:
        require(
            not visible_gpus() or ranks <= self.gpus_per_job,
            "hardware.processes",
            ranks,
            f"a job has {self.gpus_per_job} GPU(s), one for each process: set launcher.gpus_per_job={ranks}",
        )

    def open(self, folder: Path, jobs: Sequence[Job]) -> LocalPool:
        return LocalPool(folder, jobs, _gpu_sets(self.concurrency, self.gpus_per_job), self.grace_s, num_cores())


def _gpu_sets(slots: int, per_job: int) -> list[str | None]:
    """``CUDA_VISIBLE_DEVICES`` of every slot, None without GPUs; where there are more slots than GPUs, they share."""
    gpus = visible_gpus()
    if not gpus:
        return [None] * slots
    require(per_job <= len(gpus), "launcher.gpus_per_job", per_job, f"this machine offers {len(gpus)}")
    sets = [",".join(gpus[start : start + per_job]) for start in range(0, len(gpus) - per_job + 1, per_job)]
    return list(itertools.islice(itertools.cycle(sets), slots))


class LocalPool:
    """Waiting and running jobs; see :class:`sweeps.queues.base.Pool`."""

    def __init__(
        self, folder: Path, jobs: Sequence[Job], gpu_sets: Sequence[str | None], grace_s: float, max_starting: int
    ) -> None:
        self._folder = folder
        self._waiting = deque(jobs)
        self._gpu_sets = gpu_sets
        self._grace_s = grace_s
        self._max_starting = max_starting
        self._running: dict[int, _Running] = {}
        self._beaten = float("-inf")

    def poll(self) -> bool:
        for slot, started in list(self._running.items()):
            if started.job.done():
                kill_marked(started.mark)  # whatever a crashed trainer left behind
                del self._running[slot]
        for slot, gpus in enumerate(self._gpu_sets):
            if self._waiting and slot not in self._running and self._may_start():
                mark = f"local:{uuid.uuid4().hex}"
                executor = _SessionExecutor(self._folder, gpus, mark)
                executor.update_parameters(timeout_min=FOREVER_MIN)
                work = self._waiting.popleft()
                self._running[slot] = _Running(work=work, job=executor.submit(work), mark=mark)  # type: ignore[arg-type]
        self._beat()
        return bool(self._running)

    def _may_start(self) -> bool:
        """Limits the jobs that are starting up to the number of cores, because imports and the engine keep one busy."""
        if len(self._running) < self._max_starting:
            return True
        return sum(_is_starting(started.work) for started in self._running.values()) < self._max_starting

    def _beat(self) -> None:
        """Heartbeats for waiting runs: from another machine nothing else shows that they are still queued."""
        if time.monotonic() - self._beaten > BEAT_S:
            self._beaten = time.monotonic()
            for run_dir in (Path(run_dir) for job in self._waiting for run_dir in job.run_dirs):
                with contextlib.suppress(OSError):
                    beat(run_dir)

    def add(self, job: Job) -> None:
        self._waiting.append(job)

    def has(self, job: Job) -> bool:
        return any(item is job for item in [*self._waiting, *(started.work for started in self._running.values())])

    def stop(self, *, running: bool = True) -> None:
        if not running:
            return self.leave()
        cancel_runs([*self._waiting, *(started.work for started in self._running.values())])
        self._waiting.clear()
        for started in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                # Submitit's controller signals the worker, and that the trainer; its children must not be signalled.
                os.kill(int(started.job.job_id), signal.SIGTERM)
        end = time.monotonic() + self._grace_s
        while not all(started.job.done() for started in self._running.values()) and time.monotonic() < end:
            time.sleep(0.1)
        for started in self._running.values():
            kill_marked(started.mark)
            started.job._process.wait()  # type: ignore[union-attr]
        self._running.clear()

    def leave(self) -> None:
        self._waiting.clear()
        self._running.clear()


def _is_starting(job: Job) -> bool:
    """Whether none of a job's runs has made a step or ended."""
    statuses = [read_status(Path(run_dir)) for run_dir in job.run_dirs]
    return all(status is None or (status.state in UNFINISHED and not status.step) for status in statuses)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    work: Job
    job: LocalJob[Any]
    mark: str
    """Marks all processes of the job; see :mod:`sweeps.queues.processes`."""


class _SessionExecutor(submitit.LocalExecutor):
    """Submitit's local executor, its controller started in a new session and with a given set of GPUs."""

    def __init__(self, folder: Path, gpus: str | None, mark: str) -> None:
        super().__init__(folder)
        self._gpus = gpus
        self._mark = mark

    def _submit_command(self, command: str) -> LocalJob[Any]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "30",
            "SUBMITIT_LOCAL_TIMEOUT_S": str(FOREVER_MIN * 60),
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "",
            MARK: self._mark,
        }
        if self._gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus
        with (Path(self.folder) / "controllers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "submitit.local._local", str(self.folder)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=[0])
