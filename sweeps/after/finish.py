"""The end of a sweep: what became of every cell, and what the exit code says of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps.after.manage import sync
from sweeps.after.results import show_results, ui_line
from sweeps.grid.cells import Cell
from sweeps.grid.sweep import Study
from sweeps.queues.liveness import close_dead
from sweeps.tracking import Tracker, absolute
from trainer.contract.run_folder import last_attempt
from trainer.contract.status import FINISHED, read_object, read_status

BAD_ENDS = ("FAILED", "LOST")
GOOD_ENDS = ("COMPLETED", "PRUNED")


def finish(study: Study, tracker: Tracker | None, parent: str | None, late: Sequence[Path]) -> int:
    """Name what went wrong, bring MLflow up to date, show the results; the exit code: 0 if every cell came to its end.

    ``late`` are finished runs that this store has not heard of yet.
    """
    close_dead([study.run_dir(cell) for cell in study.cells], over=True)
    ends = {state for _, state, _ in _ends(study)}
    if tracker is not None:
        behind = list(dict.fromkeys([*late, *not_mirrored(study)]))
        if behind:
            sync(behind, study.cells[0].config["launcher"]["trainer"])
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "FAILED" if ends & set(BAD_ENDS) else "COMPLETED")
        show_results(study, tracker.uri)
    print_places(study, tracker)
    for line in [*unfinished(study), *failures(study)]:
        print(line, file=sys.stderr)
    return 0 if ends <= set(GOOD_ENDS) else 1


def close_abandoned(study: Study) -> None:
    """End the sweep's run in MLflow when no cell is under way any more, whoever was to do it."""
    tracking, ends = study.cells[0].config["tracking"], {state for _, state, _ in _ends(study)}
    if tracking["uri"] is not None and ends <= {*FINISHED, "LOST", "PLANNED"}:
        state = "FAILED" if ends & set(BAD_ENDS) else "COMPLETED" if ends <= set(GOOD_ENDS) else "STOPPED"
        Tracker(absolute(tracking["uri"]) or "", tracking["experiment"]).close_abandoned(study.name, state)


def not_mirrored(study: Study) -> list[Path]:
    """Ended runs of which MLflow does not have everything, by the note their mirror left."""
    behind = []
    for run_dir in map(study.run_dir, study.cells):
        status = read_status(run_dir)
        ended = (read_object(run_dir / "mirror.json", "the MLflow copy is made anew") or {}).get("ended")
        if status is not None and status.state in (*FINISHED, "LOST") and ended != status.state:
            behind.append(run_dir)
    return behind


def print_places(study: Study, tracker: Tracker | None) -> None:
    """Where to look further."""
    if tracker is not None:
        print(f"compare    {ui_line(tracker.uri)}")
    single = len(study.cells) == 1
    print(f"run        {study.run_dir(study.cells[0])}" if single else f"runs       {study.output / 'runs'}")


def failures(study: Study) -> list[str]:
    """A line per cell that failed or was lost: level, seed, last line of its traceback, where to read on."""
    return [
        f"{state.lower()}: {cell.name}: {message or 'no message'}; see {_evidence(study.run_dir(cell))}"
        + ("; the same command goes on with it" if state == "LOST" else "")
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
