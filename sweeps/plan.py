"""``plan=true``: which cells there are, what is done, what would run and how long it takes.

Called by :mod:`sweeps.launch`. It reads run folders and writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sweeps.cells import Cell
from sweeps.reconcile import Action, Decision
from sweeps.runs import read_run, read_status
from sweeps.study import Study
from trainer.config import ConfigError

COSTLY = ("task", "model", "engine", "rollout", "optim", "evaluation")
"""Groups that decide how long a step takes."""

ENOUGH = 100
"""Earlier runs that an estimate looks at, the newest."""


def plan_text(study: Study, decisions: Sequence[Decision], concurrency: int) -> str:
    """The plan as a table of cells, a summary and an estimate."""
    rows = [("level", "seed", "run folder", "")]
    for cell, decision in zip(study.cells, decisions, strict=True):
        rows.append((cell.level.label, str(cell.seed), f"runs/{cell.signature}", _what(decision)))
    counts = {action: sum(decision.action is action for decision in decisions) for action in Action}
    shown = ", ".join(f"{count} {action}" for action, count in counts.items() if count)
    size = (
        f"{study.num_levels} levels x {study.num_seeds} seeds" if study.num_levels > 1 else f"{study.num_seeds} seeds"
    )
    estimate = estimate_s(study, decisions, concurrency)
    time = (
        "nothing to run"
        if not any(decision.to_queue for decision in decisions)
        else _estimate_text(estimate, concurrency)
    )
    return "\n".join(
        [
            *aligned(rows),
            "",
            f"{study.name}: {_many(len(decisions), 'cell')} ({size}); {shown}",
            f"estimated time: {time}",
        ]
    )


def opening(study: Study, decisions: Sequence[Decision], num_jobs: int, concurrency: int) -> str:
    """The line a sweep begins with: what is there already, what runs, how long it takes."""
    counts = {action: sum(decision.action is action for decision in decisions) for action in Action}
    before = [f"{counts[action]} {action}" for action in (Action.KEEP, Action.JOIN, Action.LEAVE) if counts[action]]
    cells, todo = _many(len(decisions), "cell"), counts[Action.START] + counts[Action.RESUME]
    if not todo:
        return f"{study.name}: {cells}; {', '.join(before)}; nothing to run"
    seconds = estimate_s(study, decisions, concurrency)
    time = f", about {duration(seconds)}" if seconds is not None else ""
    parts = [cells, ", ".join(before), f"{todo} to run in {_many(num_jobs, 'job')}, {concurrency} at a time{time}"]
    return f"{study.name}: {'; '.join(filter(None, parts))}"


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _what(decision: Decision) -> str:
    status = decision.status
    if decision.action is Action.RESUME and status is not None and status.step:
        return f"resume at step {status.step}"
    if decision.action is Action.LEAVE and status is not None:
        retry = "failed" if status.state == "FAILED" else "all"
        return f"{status.state.lower()}, left alone (retry={retry} runs it again)"
    return str(decision.action)


def _estimate_text(seconds: float | None, concurrency: int) -> str:
    if seconds is None:
        return "no earlier run to estimate from"
    return f"about {duration(seconds)} on {_many(concurrency, 'slot')}, from earlier runs"


def estimate_s(study: Study, decisions: Sequence[Decision], concurrency: int) -> float | None:
    """Seconds for what is to be queued, from completed runs of the same cost or, failing that, of the same model."""
    todo = [(cell, decision) for cell, decision in zip(study.cells, decisions, strict=True) if decision.to_queue]
    known = list(_earlier(study.output))
    total = 0.0
    for cell, decision in todo:
        speed = _speed(cell, known)
        if speed is None:
            return None
        done = decision.status.step if decision.status else 0
        total += speed * max(0, int(cell.config["steps"]) - done)
    return total / min(concurrency, max(1, len(todo)))


def _speed(cell: Cell, known: Sequence[tuple[Mapping[str, Any], float]]) -> float | None:
    """Mean seconds per step of the runs that resemble ``cell`` most."""
    for groups in (COSTLY, ("task", "model", "engine", "rollout"), ("model", "engine")):
        alike = [
            speed for config, speed in known if all(config.get(group) == cell.config.get(group) for group in groups)
        ]
        if alike:
            return fmean(alike)
    return None


def _earlier(output: Path) -> list[tuple[Mapping[str, Any], float]]:
    """(configuration, seconds per step with everything) of completed runs."""
    found: list[tuple[Mapping[str, Any], float]] = []
    newest = sorted((output / "runs").glob("*/timings.jsonl"), key=lambda path: -path.stat().st_mtime)[:ENOUGH]
    for path in newest:
        status = read_status(path.parent)
        if status is None or status.state != "COMPLETED" or not status.steps:
            continue
        seconds = sum(_step_s(line) for line in path.read_text().splitlines())
        try:
            found.append((read_run(path.parent), seconds / status.steps))
        except ConfigError:  # a folder that is not ours to mend: it only fails to help
            continue
    return found


def _step_s(line: str) -> float:
    try:
        metrics = json.loads(line)["metrics"]
    except (ValueError, KeyError):  # a line cut off by a crash
        return 0.0
    return float(metrics.get("time/step_s") or metrics.get("time/eval_s") or 0.0)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest entry."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip() for row in rows]
