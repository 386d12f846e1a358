"""The text of ``plan=true``: the cells of a sweep, what would be done with each, and how long that takes.

It formats the results of :mod:`sweeps.plan.reconcile` and :mod:`sweeps.plan.estimate`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from sweeps.grid.sweep import Sweep
from sweeps.plan.estimate import Estimate
from sweeps.plan.reconcile import Action, Decision
from sweeps.plan.schema import outdated_line
from sweeps.queues.base import Queue
from trainer.contract.settings import ConfigError


def plan_text(sweep: Sweep, decisions: Sequence[Decision], queue: Queue, expected: Estimate | None) -> str:
    """The plan as a table of cells, a summary and an estimate."""
    rows = [("level", "seed", "run folder", "")]
    for cell, decision in zip(sweep.cells, decisions, strict=True):
        rows.append((cell.level.label, str(cell.seed), f"runs/{cell.signature}", _what(decision)))
    counts = {action: sum(decision.action is action for decision in decisions) for action in Action}
    actions = ", ".join(f"{count} {action}" for action, count in counts.items() if count)
    size = (
        f"{sweep.num_levels} levels x {sweep.num_seeds} seeds" if sweep.num_levels > 1 else f"{sweep.num_seeds} seeds"
    )
    time = _estimate_text(expected, queue) if any(decision.to_queue for decision in decisions) else "nothing to run"
    return "\n".join(
        [
            *aligned(rows, screen_width()),
            "",
            f"{sweep.name}: {_many(len(decisions), 'cell')} ({size}); {actions}",
            f"estimated time: {time}",
            *filter(None, [outdated_line(sweep.output)]),
        ]
    )


def opening_line(
    sweep: Sweep, decisions: Sequence[Decision], num_jobs: int, queue: Queue, expected: Estimate | None
) -> str:
    """The first line that a sweep prints: cells that are done, cells to run, and the expected time."""
    counts = {action: sum(decision.action is action for decision in decisions) for action in Action}
    before = [f"{counts[action]} {action}" for action in (Action.KEEP, Action.JOIN, Action.LEAVE) if counts[action]]
    cells, todo = _many(len(decisions), "cell"), counts[Action.START] + counts[Action.RESUME]
    if not todo:
        return f"{sweep.name}: {cells}; {', '.join(before)}; nothing to run"
    old = f"\n{line}" if (line := outdated_line(sweep.output)) else ""
    time = f", about {duration(expected.wall_s)}" if expected is not None else ""
    run = f"{todo} to run in {_many(num_jobs, 'job')}, {min(num_jobs, queue.concurrency)} at a time{time}"
    return f"{sweep.name}: {'; '.join(filter(None, [cells, ', '.join(before), run]))}{old}"


def require_affordable(expected: Estimate | None, queue: Queue, max_hours: float) -> None:
    """Raise :class:`ConfigError` when what is to be queued is expected to take more than ``max_hours`` of jobs."""
    if expected is not None and expected.device_s > 3600 * max_hours:
        raise ConfigError(
            f"this sweep would take about {_total(expected, queue)}, going by earlier runs, "
            f"more than max_hours={max_hours:g}: say that you mean it (yes=true, or --yes), or raise max_hours"
        )


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _what(decision: Decision) -> str:
    status = decision.status
    if decision.action is Action.RESUME and status is not None and status.step:
        return f"resume at step {status.step}"
    if decision.unknown_liveness:
        return "running, as far as one can tell (retry=lost takes it over)"
    if decision.action is Action.LEAVE and status is not None:
        retry = "failed" if status.state == "FAILED" else "all"
        return f"{status.state.lower()}, left alone (retry={retry} runs it again)"
    return str(decision.action)


def _estimate_text(expected: Estimate | None, queue: Queue) -> str:
    if expected is None:
        return "no earlier run to estimate from"
    slots = _many(queue.concurrency, "slot")
    return f"about {duration(expected.wall_s)} on {slots} ({_total(expected, queue)}), from earlier runs"


def _total(expected: Estimate, queue: Queue) -> str:
    return f"{duration(expected.device_s)} of {'GPUs' if queue.num_gpus else 'jobs'} in all"


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"


PIPED_WIDTH = 100
"""Columns of what goes to a file or a pipe."""


def screen_width(stream: TextIO | None = None) -> int:
    """Columns that a line may have: those of the terminal, or :data:`PIPED_WIDTH`."""
    return shutil.get_terminal_size().columns - 1 if (stream or sys.stdout).isatty() else PIPED_WIDTH


def aligned(rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Columns as wide as their widest entry; beyond ``width`` in all, entries of the first column are shortened."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if width is not None:
        widths[0] = min(widths[0], max(12, width - sum(widths[1:]) - 2 * len(widths[1:])))
    fitted = [(shortened(row[0], widths[0]), *row[1:]) for row in rows]
    return ["  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip() for row in fitted]


def shortened(text: str, width: int) -> str:
    """``text``, or its beginning and its end with ``...`` between, in at most ``width`` (7 or more) columns."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{text[: width - 3 - end]}...{text[len(text) - end :]}"
