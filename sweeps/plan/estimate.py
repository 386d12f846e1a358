"""Estimates how long a sweep will take, from the timings of similar completed runs in the same output folder."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sweeps.grid.cells import Cell
from sweeps.grid.sweep import Sweep
from sweeps.plan.reconcile import Decision
from sweeps.queues.base import Queue
from sweeps.runs.run_folder import read_run
from trainer.contract.identity import by_class_name
from trainer.contract.records import DamagedRecord, read_records
from trainer.contract.run_folder import last_attempt, last_job
from trainer.contract.settings import ConfigError
from trainer.contract.status import read_status

SIMILARITY = (
    ("task", "model", "engine", "rollout", "optim", "evaluation", "hardware"),
    ("task", "model", "engine", "rollout", "hardware"),
    ("model", "engine", "hardware"),
    ("model", "engine"),
    ("model",),
)
"""Groups that decide how long a step takes, the most similar runs first: a later row is used if no run matches an
earlier one."""

MAX_RUNS_READ = 100
"""Only this many completed runs are read, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Time that the cells to be queued will take."""

    wall_s: float
    """Wall-clock seconds until the last job ends, with as many jobs at a time as the queue runs."""
    device_s: float
    """GPU seconds of all jobs together; job seconds where jobs have no GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A completed run from which an estimate is made."""

    config: Mapping[str, Any]
    step_s: float
    """Seconds per step, evaluations included."""
    job: str
    span: tuple[float, float]
    """Unix seconds at which its job began and its last step was recorded."""


def split_into_jobs(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """The cells of each job, ``size`` each."""
    return [list(cells[start : start + size]) for start in range(0, len(cells), size)]


def estimate(sweep: Sweep, decisions: Sequence[Decision], queue: Queue) -> Estimate | None:
    """Time for what is to be queued; None where no earlier run resembles a cell."""
    status = {cell.signature: item.status for cell, item in zip(sweep.cells, decisions, strict=True) if item.to_queue}
    todo = [cell for cell in sweep.in_queue_order if cell.signature in status]
    known = finished_runs(sweep.output)
    start_s, speeds, jobs = start_up_s(known), dict[str, float | None](), []
    for job_cells in split_into_jobs(todo, queue.job_size(len(todo))):
        seconds = start_s
        for cell in job_cells:
            config = by_class_name(cell.config)
            cost = json.dumps([config.get(group) for group in SIMILARITY[0]], sort_keys=True)
            speed = speeds[cost] if cost in speeds else speeds.setdefault(cost, _step_s(config, known))
            if speed is None:
                return None
            before = status[cell.signature]
            seconds += speed * max(0, int(cell.config["steps"]) - (before.step if before else 0))
        jobs.append(seconds)
    return Estimate(wall_s=makespan_s(jobs, queue.concurrency), device_s=sum(jobs) * max(1, queue.num_gpus))


def makespan_s(jobs: Sequence[float], slots: int) -> float:
    """Seconds until the last of ``jobs`` has ended when each starts as soon as one of ``slots`` is free."""
    free = [0.0] * max(1, min(slots, len(jobs)))
    for seconds in jobs:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def finished_runs(output: Path) -> list[FinishedRun]:
    """Completed runs, the newest first."""
    samples = []
    for path in sorted((output / "runs").glob("*/timings.jsonl"), key=lambda path: -path.stat().st_mtime)[
        :MAX_RUNS_READ
    ]:
        status = read_status(path.parent)
        if status is None or status.state != "COMPLETED" or not status.steps:
            continue
        records = timings(path)
        try:
            samples.append(
                FinishedRun(
                    config=by_class_name(read_run(path.parent)),
                    step_s=time_in_steps_s(records) / status.steps,
                    job=last_job(path.parent) or path.parent.name,
                    span=(_began(path.parent), max((time for time, _ in records), default=0.0)),
                )
            )
        except ConfigError:  # a folder that is not ours to mend: it only fails to help
            continue
    return samples


def timings(path: Path) -> list[tuple[float, dict[str, Any]]]:
    """(Unix time, metrics) of every line of a ``timings.jsonl``; none where there is no file, or a damaged one."""
    try:
        records, _ = read_records(path)
        return [(float(record["time"]), dict(record["metrics"])) for record in records]
    except (DamagedRecord, KeyError, TypeError, ValueError):  # not ours to mend: it only fails to help
        return []


def time_in_steps_s(records: Sequence[tuple[float, Mapping[str, Any]]]) -> float:
    """Seconds spent in steps, and in evaluations outside a step."""
    return sum(float(m.get("time/step_s") or m.get("time/eval_s") or 0) for _, m in records)


def start_up_s(known: Sequence[FinishedRun]) -> float:
    """Seconds of a job outside the steps of its runs (imports, engine, models); 0 if no job had a single attempt."""
    over = []
    for _, group in itertools.groupby(sorted(known, key=lambda run: run.job), key=lambda run: run.job):
        runs = list(group)
        steps_s = sum(run.step_s * int(run.config["steps"]) for run in runs)
        if all(run.span[0] for run in runs):
            over.append(max(run.span[1] for run in runs) - min(run.span[0] for run in runs) - steps_s)
    return max(0.0, fmean(over)) if over else 0.0


def _began(run_dir: Path) -> float:
    """Unix time at which a run began; 0 if it had several attempts, whose start-up times cannot be told apart."""
    attempt = last_attempt(run_dir)
    path = attempt / "job" if attempt is not None and attempt.name == "1" else None
    return path.stat().st_mtime if path is not None and path.exists() else 0.0


def _step_s(config: Mapping[str, Any], known: Sequence[FinishedRun]) -> float | None:
    """Mean seconds per step of the runs most similar to ``config``."""
    for groups in SIMILARITY:
        alike = [run.step_s for run in known if all(run.config.get(key) == config.get(key) for key in groups)]
        if alike:
            return fmean(alike)
    return None
