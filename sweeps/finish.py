"""The end of a sweep: what became of every cell, and what the exit code says of it.

Called by :mod:`sweeps.launch` when nothing runs any more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps.cells import Cell
from sweeps.queues.slurm import living_jobs
from sweeps.results import show_results, ui_line
from sweeps.runs import is_alive, last_attempt, read_status, write_status
from sweeps.study import Study
from sweeps.tracking import Tracker
from sweeps.worker import ROOT

BAD_ENDS = ("FAILED", "LOST")
GOOD_ENDS = ("COMPLETED", "PRUNED")


def finish(study: Study, tracker: Tracker | None, parent: str | None, late: Sequence[Path]) -> int:
    """Name what went wrong, bring MLflow up to date, show the results; the exit code: 0 if every cell came to its end.

    ``late`` are finished runs that this store has not heard of yet.
    """
    late = list(dict.fromkeys([*late, *_mark_lost(study)]))
    ends = {state for _, state, _ in _ends(study)}
    if tracker is not None:
        _sync(study, [*late, *(run_dir for run_dir in not_mirrored(study) if run_dir not in late)])
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "FAILED" if ends & set(BAD_ENDS) else "COMPLETED")
        show_results(study, tracker.uri)
    print_places(study, tracker)
    for line in [*unfinished(study), *failures(study)]:
        print(line, file=sys.stderr)
    return 0 if ends <= set(GOOD_ENDS) else 1


def _sync(study: Study, run_dirs: Sequence[Path]) -> None:
    """Bring MLflow up to date with runs whose mirror fell behind; one sentence for what it still lacks."""
    if not run_dirs:
        return
    trainer = study.cells[0].config["launcher"]["trainer"]
    command = [sys.executable, *trainer, "--sync", *map(str, run_dirs)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"MLflow lacks a part of {len(run_dirs)} run(s): {reason}", file=sys.stderr)


def not_mirrored(study: Study) -> list[Path]:
    """Ended runs of which MLflow does not have everything, by the note their mirror left."""
    behind = []
    for run_dir in map(study.run_dir, study.cells):
        status, note = read_status(run_dir), run_dir / "mirror.json"
        ended = json.loads(note.read_text()).get("ended") if note.exists() else None
        if status is not None and status.state in (*GOOD_ENDS, *BAD_ENDS) and ended != status.state:
            behind.append(run_dir)
    return behind


def print_places(study: Study, tracker: Tracker | None) -> None:
    """Where to look further."""
    if tracker is not None:
        print(f"compare    {ui_line(tracker.uri)}")
    single = len(study.cells) == 1
    print(f"run        {study.run_dir(study.cells[0])}" if single else f"runs       {study.output / 'runs'}")


def _mark_lost(study: Study) -> list[Path]:
    """Runs whose job has ended without a word are LOST from now on; the next launch takes them up again."""
    lost = []
    for run_dir in map(study.run_dir, study.cells):
        status = read_status(run_dir)
        if status is None or status.state not in ("QUEUED", "RUNNING"):
            continue
        # Our own queue is over: what still waits for this very process has nobody left.
        if status.pid == os.getpid() or not is_alive(run_dir, status, living_jobs()):
            stopped = (run_dir / "STOP").exists()
            message = "cancelled" if stopped else "its process ended without a word (killed, or out of memory)"
            write_status(run_dir, "CANCELLED" if stopped else "LOST", message=message)
            lost.append(run_dir)
    return lost


def failures(study: Study) -> list[str]:
    """A line per cell that failed or was lost: level, seed, last line of its traceback, where to read on."""
    return [
        f"failed: {cell.name}: {message or 'no message'}; see {_evidence(study.run_dir(cell))}"
        for cell, state, message in _ends(study)
        if state in BAD_ENDS
    ]


def unfinished(study: Study) -> list[str]:
    """A line per cell that has not come to its end."""
    return [f"{state.lower()}: {cell.name}" for cell, state, _ in _ends(study) if state not in (*BAD_ENDS, *GOOD_ENDS)]


def _ends(study: Study) -> list[tuple[Cell, str, str | None]]:
    found = [(cell, read_status(study.run_dir(cell))) for cell in study.cells]
    return [(cell, status.state if status else "PLANNED", status.message if status else None) for cell, status in found]


def _evidence(run_dir: Path) -> Path:
    attempt = last_attempt(run_dir)
    if attempt is None:
        return run_dir
    return next((attempt / name for name in ("traceback", "err") if (attempt / name).exists()), attempt)
