"""The end of a sweep: bring MLflow up to date, print the results and failures, and give the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps.after.manage import sync
from sweeps.after.results import show_results, ui_line
from sweeps.grid.cells import Cell
from sweeps.grid.sweep import Sweep
from sweeps.queues.liveness import record_dead_runs
from sweeps.tracking import Tracker, absolute
from trainer.contract.run_folder import last_attempt
from trainer.contract.status import FINISHED, read_object, read_status

BAD_ENDS = ("FAILED", "LOST")
GOOD_ENDS = ("COMPLETED", "PRUNED")


def finish(sweep: Sweep, tracker: Tracker | None, parent: str | None, adopted: Sequence[Path]) -> int:
    """Bring MLflow up to date, print results and failures; the exit code: 0 if every cell was completed or pruned.

    ``adopted`` are completed runs of earlier sweeps that this sweep's MLflow store does not hold yet.
    """
    record_dead_runs([sweep.run_dir(cell) for cell in sweep.cells], queue_drained=True)
    states = {state for _, state, _ in _ends(sweep)}
    if tracker is not None:
        behind = list(dict.fromkeys([*adopted, *not_mirrored(sweep)]))
        if behind:
            sync(behind, sweep.cells[0].config["launcher"]["trainer"])
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "FAILED" if states & set(BAD_ENDS) else "COMPLETED")
        show_results(sweep, tracker.uri)
    print_locations(sweep, tracker)
    for line in [*unfinished(sweep), *failures(sweep)]:
        print(line, file=sys.stderr)
    return 0 if states <= set(GOOD_ENDS) else 1


def close_abandoned(sweep: Sweep) -> None:
    """End the sweep's parent run in MLflow if no cell is running or queued and ``sweep.py`` did not do it."""
    tracking, ends = sweep.cells[0].config["tracking"], {state for _, state, _ in _ends(sweep)}
    if tracking["uri"] is not None and ends <= {*FINISHED, "LOST", "PLANNED"}:
        state = "FAILED" if ends & set(BAD_ENDS) else "COMPLETED" if ends <= set(GOOD_ENDS) else "STOPPED"
        Tracker(absolute(tracking["uri"]) or "", tracking["experiment"]).close_abandoned(sweep.name, state)


def not_mirrored(sweep: Sweep) -> list[Path]:
    """Ended runs that MLflow does not hold completely, according to their ``mirror.json``."""
    behind = []
    for run_dir in map(sweep.run_dir, sweep.cells):
        status = read_status(run_dir)
        ended = (read_object(run_dir / "mirror.json", "the MLflow copy is made anew") or {}).get("ended")
        if status is not None and status.state in (*FINISHED, "LOST") and ended != status.state:
            behind.append(run_dir)
    return behind


def print_locations(sweep: Sweep, tracker: Tracker | None) -> None:
    """Print where the runs are, and the command that opens MLflow."""
    if tracker is not None:
        print(f"compare    {ui_line(tracker.uri)}")
        print(f"           {tracker.view_address(sweep.name)}")
    single = len(sweep.cells) == 1
    print(f"run        {sweep.run_dir(sweep.cells[0])}" if single else f"runs       {sweep.output / 'runs'}")


def failures(sweep: Sweep) -> list[str]:
    """A line per cell that failed or was lost: level, seed, last line of the traceback, file with the rest."""
    return [
        f"{state.lower()}: {cell.name}: {message or 'no message'}; see {_log_of(sweep.run_dir(cell))}"
        + ("; the same command goes on with it" if state == "LOST" else "")
        for cell, state, message in _ends(sweep)
        if state in BAD_ENDS
    ]


def unfinished(sweep: Sweep) -> list[str]:
    """A line per cell that has not ended."""
    return [f"{state.lower()}: {cell.name}" for cell, state, _ in _ends(sweep) if state not in (*BAD_ENDS, *GOOD_ENDS)]


def _ends(sweep: Sweep) -> list[tuple[Cell, str, str | None]]:
    statuses = [(cell, read_status(sweep.run_dir(cell))) for cell in sweep.cells]
    return [
        (cell, status.state if status else "PLANNED", status.message if status else None) for cell, status in statuses
    ]


def _log_of(run_dir: Path) -> Path:
    attempt = last_attempt(run_dir)
    if attempt is None:
        return run_dir
    return next((attempt / name for name in ("traceback", "err") if (attempt / name).exists()), attempt)
