"""Cancels, syncs and reopens a sweep from its folders alone.

Nothing is composed anew: the configuration of a cell is its ``run.yaml``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from sweeps.grid.cells import Cell
from sweeps.grid.levels import Level
from sweeps.grid.sweep import Document, Sweep
from sweeps.queues.liveness import record_dead_runs
from sweeps.queues.processes import kill_marked
from sweeps.queues.slurm import cancel_jobs
from sweeps.runs.run_folder import read_run
from trainer.contract.liveness import is_locked, job_of
from trainer.contract.paths import ROOT
from trainer.contract.run_folder import ask_to_stop
from trainer.contract.status import UNFINISHED, read_status, write_status

MAX_REASONS_SHOWN = 5
"""Runs whose failure is printed; of further ones only the number."""

END_S = 10.0
"""Seconds to wait for the processes of a killed job to end."""


def cancel(run_dirs: Sequence[Path], *, now: bool) -> int:
    """Ask every unfinished run to stop with a ``STOP`` file, and with ``now`` kill its job; returns their number."""
    stopping = []
    for run_dir in run_dirs:
        status = read_status(run_dir)
        if status is not None and status.state in UNFINISHED | {"PLANNED"}:
            ask_to_stop(run_dir)
            stopping.append(run_dir)
            if status.state == "PLANNED":
                write_status(run_dir, "CANCELLED", message="cancelled")
    if now:
        _kill_jobs(
            {job for run_dir in stopping if (status := read_status(run_dir)) and (job := job_of(run_dir, status))}
        )
    end = time.monotonic() + (END_S if now else 0.0)
    while any(is_locked(run_dir) for run_dir in stopping) and time.monotonic() < end:
        time.sleep(0.1)
    record_dead_runs(stopping)
    return len(stopping)


def _kill_jobs(jobs: Collection[str]) -> None:
    """Kill jobs with all their processes."""
    cancel_jobs([job for job in jobs if job.startswith("slurm:")])
    for job in jobs:
        if job.startswith("local:"):
            kill_marked(job)


def record_lost(run_dirs: Sequence[Path], trainer: Sequence[str]) -> list[Path]:
    """Record the state of dead runs, also in MLflow, where they would stay RUNNING; returns those."""
    ended = record_dead_runs(run_dirs)
    tracked = [run_dir for run_dir in ended if (read_run(run_dir).get("tracking") or {}).get("uri")]
    if tracked:
        sync(tracked, trainer)
    return ended


def sync(run_dirs: Sequence[Path], trainer: Sequence[str]) -> int:
    """Run ``python -m trainer --sync`` on these folders, which copies them to MLflow; returns its exit code."""
    print(f"bringing {len(run_dirs)} run{'s' * (len(run_dirs) != 1)} to MLflow", file=sys.stderr, flush=True)
    completed = subprocess.run(
        [sys.executable, *trainer, "--sync", *map(str, run_dirs)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if completed.returncode:
        lines = completed.stderr.strip().splitlines() or ["no message"]
        reasons = [line for line in lines if "could not be brought to MLflow" in line] or lines[-1:]
        remainder = [f"... and {len(reasons) - MAX_REASONS_SHOWN} more"] if len(reasons) > MAX_REASONS_SHOWN else []
        lines_shown = [
            f"MLflow lacks a part of {len(reasons)} of {len(run_dirs)} runs:",
            *reasons[:MAX_REASONS_SHOWN],
            *remainder,
        ]
        print("\n".join(lines_shown), file=sys.stderr)
    return completed.returncode


def load_sweep(output: Path, document: Document) -> Sweep:
    """The sweep of a ``sweep.json``, its cells read from their run folders. Raises ConfigError if one is missing."""
    cells = tuple(
        Cell(
            config={
                key: value
                for key, value in read_run(output / "runs" / cell["signature"]).items()
                if key not in ("signature", "provenance")
            },
            signature=cell["signature"],
            level=Level(name=cell["level"], label=cell["label"], index=cell["level_index"]),
            seed=cell["seed"],
            overrides=tuple(cell["overrides"]),
        )
        for cell in document["cells"]
    )
    claims = tuple(document.get("claims") or ())
    return Sweep(name=document["study"], command=document["command"], output=output, cells=cells, claims=claims)
