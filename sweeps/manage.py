"""Looking after a sweep from its folders alone: what its cells do, stopping them, and taking the sweep up again.

Called by ``python -m sweeps``. It must not compose anything: the frozen ``run.yaml`` of a cell is its configuration.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from sweeps.cells import Cell
from sweeps.follow import Followed
from sweeps.levels import Level
from sweeps.plan import aligned, duration
from sweeps.queues.slurm import living_jobs
from sweeps.runs import UNFINISHED, is_alive, is_locked, last_job, read_run, read_status, write_status
from sweeps.study import Document, Study


def status_lines(runs: Sequence[Followed]) -> list[str]:
    """A table of the cells and a summary; a run whose process has gone counts as LOST, whatever its file says."""
    jobs = living_jobs()
    rows: list[tuple[str, ...]] = [("cell", "state", "step", "reward", "entropy", "speed", "left", "")]
    states: dict[str, int] = {}
    for run in runs:
        run.refresh()
        status = run.status
        claims = status is not None and status.state in ("QUEUED", "RUNNING")
        gone = claims and status is not None and not is_alive(run.run_dir, status, jobs)
        state = "LOST" if gone else run.state
        states[state] = states.get(state, 0) + 1
        metrics = [
            f"{run.metrics[key]:.3f}" if run.metrics.get(key) is not None else ""
            for key in ("rollout/reward", "policy/entropy")
        ]
        running = state == "RUNNING"
        rows.append(
            (
                run.name,
                state,
                f"{status.step}/{status.steps}" if status else "",
                *metrics,
                f"{run.step_s:.2f} s/step" if run.step_s is not None else "",
                duration(run.left_s) if running and run.left_s is not None else "",
                (status.message or "") if status and state in ("FAILED", "LOST", "CANCELLED") else "",
            )
        )
    return [*aligned(rows), "", ", ".join(f"{count} {state.lower()}" for state, count in states.items())]


def cancel(run_dirs: Sequence[Path], *, now: bool) -> int:
    """Ask every unfinished run to stop (a ``STOP`` file), and with ``now`` end its job at once; returns how many."""
    asked = []
    for run_dir in run_dirs:
        status = read_status(run_dir)
        if status is not None and status.state in UNFINISHED:
            (run_dir / "STOP").write_text("cancel\n")
            asked.append(run_dir)
    for job in {
        status.job or last_job(run_dir) for run_dir in asked if now and (status := read_status(run_dir)) is not None
    }:
        _end(job or "")
    end = time.monotonic() + (2.0 if now else 0.0)
    while any(is_locked(run_dir) for run_dir in asked) and time.monotonic() < end:
        time.sleep(0.1)
    jobs = living_jobs()
    for run_dir in asked:
        status = read_status(run_dir)
        if status is not None and status.state in UNFINISHED and not is_alive(run_dir, status, jobs):
            write_status(run_dir, "CANCELLED", message="cancelled")
    return len(asked)


def _end(job: str) -> None:
    """Kill a job with everything it started."""
    queue, _, name = job.partition(":")
    if queue == "slurm":
        subprocess.run(["scancel", name], check=False, timeout=60)
    if queue == "local":
        with contextlib.suppress(ProcessLookupError):
            session = os.getsid(int(name))
            if session == os.getpgid(int(name)):  # ours run in sessions of their own; a stranger's group is left alone
                os.killpg(session, signal.SIGKILL)


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
