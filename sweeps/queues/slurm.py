"""``launcher=slurm``: submits the jobs of a sweep as one Slurm array through Submitit.

Their states are read in :mod:`sweeps.queues.scheduler`.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import submitit

from sweeps.queues.base import cancel_runs
from sweeps.queues.scheduler import Scheduler, ask, cluster_name, job_name, num_nodes, setting
from sweeps.queues.worker import Job
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError, Range, require
from trainer.contract.status import read_status, write_status

ASK_EVERY_S = 5.0
CANCEL_AT_ONCE = 500
"""Jobs per call of ``scancel``, because the length of a command line is limited."""

USUAL_ARRAY = 1001
"""Slurm's own default of MaxArraySize, one more than an array may have members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmQueue:
    """Settings of the Slurm jobs; a sweep is one array."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    parallel: Annotated[int, Range(1, 10_000)] = 32
    """Array members that run at the same time."""
    runs_per_job: Annotated[int, Range(1)] = 1
    """Cells that share a job and its process."""
    gpus: Annotated[int, Range(0, 1024)] = 1
    """GPUs of a job; 0 for a CPU partition."""
    cpus: Annotated[int, Range(1, 4096)] = 8
    """Cores of a job."""
    memory_gib: Annotated[int, Range(1, 100_000)] | None = None
    """Memory of a job; null: the partition's default."""
    time_min: Annotated[int, Range(1, 525_600)] = 720
    """Time limit of one attempt, minutes. A run goes on from its checkpoint in the next one."""
    signal_lead_s: Annotated[int, Range(0)] = 180
    """Seconds before the limit at which the run is asked to save; below 120 the signal may come too late."""
    max_timeouts: Annotated[int, Range(0, 10_000)] = 20
    """Times a job may hit its limit and be queued again."""
    grace_s: Annotated[float, Range(0, 86400)] = 120.0
    """Seconds a preempted run has to save."""
    setup: tuple[str, ...] = ()
    """Shell lines before the job, e.g. module loads."""
    extra: dict[str, str | int | float] = field(default_factory=dict)
    """Further sbatch options, by their long name."""
    detach: bool = False
    """Return once everything is queued; `python -m sweeps status` follows it."""
    trainer: tuple[str, ...] = ("-m", "trainer")
    """Arguments after the Python executable that start the trainer."""

    def __post_init__(self) -> None:
        lead, limit = self.signal_lead_s, self.time_min
        remedy = f"a job has launcher.time_min={limit} minutes in all: save later, or give the job more time"
        require(lead < 60 * limit, "launcher.signal_lead_s", lead, remedy)
        require(bool(self.trainer), "launcher.trainer", list(self.trainer), "name what starts the trainer")

    @property
    def concurrency(self) -> int:
        return self.parallel

    @property
    def num_gpus(self) -> int:
        return self.gpus

    @property
    def is_local(self) -> bool:
        return False

    @property
    def multi_node(self) -> bool:
        return num_nodes(self.partition) != 1

    def with_slots_for(self, runs: Sequence[Mapping[str, Any]]) -> SlurmQueue:
        return self  # the cluster knows its nodes

    def job_size(self, num_runs: int) -> int:
        """``runs_per_job``, or more if the jobs would exceed MaxArraySize: one array, one limit on parallel jobs."""
        members = int(setting("MaxArraySize") or USUAL_ARRAY) - 1
        return max(self.runs_per_job, math.ceil(num_runs / members))

    def require_available(self) -> None:
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ConfigError(
                "launcher=slurm needs sbatch and srun on this machine: "
                "log in to a cluster's submit host, or use launcher=local"
            )
        if ask() is None:
            raise ConfigError(
                "launcher=slurm: no Slurm cluster answers squeue on this machine: "
                "log in to a cluster's submit host, or use launcher=local"
            )

    def require_room_for(self, ranks: int) -> None:
        require(
            not self.gpus or ranks <= self.gpus,
            "hardware.processes",
            ranks,
            f"a job has {self.gpus} GPU(s), one for each process: set launcher.gpus={ranks}",
        )

    def open(self, folder: Path, jobs: Sequence[Job]) -> SlurmPool:
        require("%" not in str(folder), "output", str(folder), "Slurm reads % in a path as a pattern: choose another")
        return SlurmPool(jobs, lambda more: self._submit(folder, more))

    def _submit(self, folder: Path, jobs: Sequence[Job]) -> list[str]:
        """Queue ``jobs`` as one array; their names."""
        executor = submitit.SlurmExecutor(folder, max_num_timeout=self.max_timeouts)
        executor.update_parameters(**self._parameters())
        try:
            with executor.batch():
                submitted = [executor.submit(job) for job in jobs]
            names = [job_name(job.job_id, cluster_name()) for job in submitted]
        except submitit.core.utils.FailedJobError as error:
            raise ConfigError(f"Slurm refused the jobs: {' '.join(str(error).split())}") from error
        for job, name in zip(jobs, names, strict=True):
            for run_dir in map(Path, job.run_dirs):
                status = read_status(run_dir)
                if (
                    status is not None and status.pid == os.getpid()
                ):  # still as the launcher left it: the job has not started
                    write_status(run_dir, status.state, job=name)
        return names

    def _parameters(self) -> dict[str, Any]:
        options = {"partition": self.partition, "account": self.account, "qos": self.qos, "constraint": self.constraint}
        return {
            **{key: value for key, value in options.items() if value is not None},
            **({"mem": f"{self.memory_gib}GB"} if self.memory_gib else {}),
            **({"gpus_per_node": self.gpus} if self.gpus else {}),
            "job_name": "rlvr",
            "time": self.time_min,
            "cpus_per_task": self.cpus,
            "ntasks_per_node": 1,
            "nodes": 1,
            "array_parallelism": self.parallel,
            "signal_delay_s": self.signal_lead_s,
            "setup": [*self.setup, f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"],
            "additional_parameters": dict(self.extra),
        }


class SlurmPool:
    """Submitted arrays; see :class:`sweeps.queues.base.Pool`."""

    def __init__(self, jobs: Sequence[Job], submit: Callable[[Sequence[Job]], list[str]]) -> None:
        self._submit = submit
        self._jobs = list(zip(jobs, submit(jobs), strict=True)) if jobs else []
        self._scheduler: Scheduler | None = None
        self._asked = float("-inf")

    def poll(self) -> bool:
        self._ask()
        return any(self._is_listed(name) for _, name in self._jobs)

    def add(self, job: Job) -> None:
        self._jobs.append((job, self._submit([job])[0]))
        self._asked = float("-inf")  # the last answer does not know it

    def has(self, job: Job) -> bool:
        self._ask()
        return any(item is job and self._is_listed(name) for item, name in self._jobs)

    def _ask(self) -> None:
        if time.monotonic() - self._asked >= ASK_EVERY_S:
            self._asked = time.monotonic()
            self._scheduler = ask()

    def _is_listed(self, name: str) -> bool:
        """What Slurm does not say counts as alive."""
        return self._scheduler is None or self._scheduler.has(name) is not False

    def stop(self, *, running: bool = True) -> None:
        if running:
            cancel_runs([job for job, _ in self._jobs])
        cancel_jobs([name for _, name in self._jobs], *([] if running else ["--state=PENDING"]))

    def leave(self) -> None:
        """Nothing to do: the cluster needs no launcher."""


def cancel_jobs(names: Sequence[str], *options: str) -> None:
    """``scancel`` for jobs of this cluster; what has ended already does not matter."""
    numbers = [name.removeprefix("slurm:").partition("@")[0] for name in names]
    for start in range(0, len(numbers), CANCEL_AT_ONCE):
        subprocess.run(["scancel", *options, *numbers[start : start + CANCEL_AT_ONCE]], check=False, timeout=60)
