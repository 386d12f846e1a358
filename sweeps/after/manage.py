"""Looking after a sweep from its folders alone: what its cells do, stopping them, and taking the sweep up again.

It must not compose anything: the frozen ``run.yaml`` of a cell is its configuration.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from sweeps.grid.cells import Cell
from sweeps.grid.levels import Level
from sweeps.grid.sweep import Document, Study
from sweeps.queues.liveness import close_dead
from sweeps.queues.processes import kill_marked
from sweeps.queues.slurm import cancel_jobs
from sweeps.runs.run_folder import read_run
from trainer.contract.config import ROOT
from trainer.contract.liveness import is_locked, job_of
from trainer.contract.run_folder import ask_to_stop
from trainer.contract.status import UNFINISHED, read_status, write_status

SHOWN = 5
"""Runs whose failure is told in full."""

END_S = 10.0
"""How long the processes of a job that is ended at once may take to go; Slurm gives them a moment."""


def cancel(run_dirs: Sequence[Path], *, now: bool) -> int:
    """Ask every unfinished run to stop (a ``STOP`` file), and with ``now`` end its job at once; returns how many."""
    asked = []
    for run_dir in run_dirs:
        status = read_status(run_dir)
        if status is not None and status.state in UNFINISHED | {"PLANNED"}:
            ask_to_stop(run_dir)
            asked.append(run_dir)
            if status.state == "PLANNED":
                write_status(run_dir, "CANCELLED", message="cancelled")
    if now:
        _end_jobs({job for run_dir in asked if (status := read_status(run_dir)) and (job := job_of(run_dir, status))})
    end = time.monotonic() + (END_S if now else 0.0)
    while any(is_locked(run_dir) for run_dir in asked) and time.monotonic() < end:
        time.sleep(0.1)
    close_dead(asked)
    return len(asked)


def _end_jobs(jobs: Collection[str]) -> None:
    """End jobs with everything they started."""
    cancel_jobs([job for job in jobs if job.startswith("slurm:")])
    for job in jobs:
        if job.startswith("local:"):
            kill_marked(job)


def drop_lost(run_dirs: Sequence[Path], trainer: Sequence[str]) -> list[Path]:
    """Write down which runs have died, also in MLflow, where they would stay RUNNING for ever; returns those."""
    ended = close_dead(run_dirs)
    tracked = [run_dir for run_dir in ended if (read_run(run_dir).get("tracking") or {}).get("uri")]
    if tracked:
        sync(tracked, trainer)
    return ended


def sync(run_dirs: Sequence[Path], trainer: Sequence[str]) -> int:
    """Let the trainer bring MLflow up to date with these folders; its exit code, after sentences if it is not 0."""
    print(f"bringing {len(run_dirs)} run{'s' * (len(run_dirs) != 1)} to MLflow", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, *trainer, "--sync", *map(str, run_dirs)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        reasons = [line for line in lines if "could not be brought to MLflow" in line] or lines[-1:]
        more = [f"... and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
        shown = [f"MLflow lacks a part of {len(reasons)} of {len(run_dirs)} runs:", *reasons[:SHOWN], *more]
        print("\n".join(shown), file=sys.stderr)
    return done.returncode


def reopened(output: Path, document: Document) -> Study:
    """The study of a ``sweep.json``, its cells read from their run folders. Raises ConfigError when one has gone."""
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
    return Study(name=document["study"], command=document["command"], output=output, cells=cells)
