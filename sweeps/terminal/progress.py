"""Progress of a sweep: one live table of all cells on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import itertools
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.plan.plan import PIPED_WIDTH, duration, shortened
from sweeps.runs.progress import RunProgress
from trainer.contract.status import FINISHED

EVERY_S = 30.0
"""Least time between two lines on one cell where the output is no terminal; its start and its end are told at once."""

CURVE = 20
"""Columns of the curve of entropy."""

URGENT = ("RUNNING", "FAILED", "LOST", "QUEUED", "PREEMPTED", "CANCELLED", "PLANNED", "PRUNED", "COMPLETED")
"""States by urgency: a table too long for the screen shows the first ones."""


class Display:
    """Progress in a stream: a table that is redrawn on a terminal, lines of at most 100 columns elsewhere."""

    def __init__(
        self, runs: Sequence[RunProgress], *, done_before: int, concurrency: int, stream: TextIO | None = None
    ) -> None:
        stream = stream or sys.stdout
        terminal = stream.isatty()
        self._console = Console(
            file=stream, width=None if terminal else PIPED_WIDTH, highlight=False, markup=False, emoji=False
        )
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if terminal else None
        self._runs, self._done_before, self._concurrency = runs, done_before, concurrency
        self._width = max((len(run.name) for run in runs), default=0)
        self._said: dict[Path, tuple[str, bool]] = {}
        """State of each run when it was last told of, and whether its first step had been."""
        self._told: dict[Path, float] = {}
        if self._live is not None:
            self._live.start()

    def update(self) -> None:
        """Print what changed since the last call."""
        for run in self._runs:
            run.refresh()
            for line in self._news(run):
                self._console.print(line, soft_wrap=True)
        if self._live is not None:
            self._live.update(Group(Text(self._summary()), self._table()), refresh=True)
        else:
            self._console.file.flush()

    def close(self) -> None:
        """Erase the live table."""
        if self._live is not None:
            self._live.stop()

    def _news(self, run: RunProgress) -> list[str]:
        """Lines for a run that ended or, in a file, made its first step or has not been told of for a while."""
        now, state, begun = time.monotonic(), run.state, run.state == "RUNNING" and run.starting is None
        waiting = state in ("PLANNED", "QUEUED") and run.starting is None
        before = self._said.setdefault(run.run_dir, (state if waiting else "", False))
        self._told.setdefault(run.run_dir, now)
        if state != before[0] and (state in FINISHED or state in ("LOST", "PREEMPTED")):
            self._said[run.run_dir] = (state, False)
            return self._ended_lines(run)
        first = begun and not before[1]
        due = first or (run.is_live and now - self._told[run.run_dir] >= EVERY_S)
        if self._live is not None:
            self._said[run.run_dir] = (state, begun)
        if self._live is not None or waiting or not due:
            return []
        self._said[run.run_dir], self._told[run.run_dir] = (state, begun), now
        if first:
            return [self._line("running", run, [run.startup_text() or "started"])]
        if run.starting is not None:
            phase, seconds = run.starting
            return [self._line("starting", run, [f"{phase}, {duration(seconds)}"])]
        left = [f"left {duration(run.left_s)}"] if run.left_s is not None else []
        return [self._line("running", run, [*run.figures()[:3], *left])]

    def _ended_lines(self, run: RunProgress) -> list[str]:
        """How a run ended: what it changed, or why it did not get there, in full."""
        message = run.damage or (run.status.message if run.status else None)
        if run.state == "COMPLETED" and not message:
            return [self._line("completed", run, [*run.changes(), f"in {duration(run.total_s)}"])]
        said = textwrap.wrap(message or "", self._console.width - 5, initial_indent="    ", subsequent_indent="    ")
        return [self._line(run.state.lower(), run, run.figures()[:3]), *said]

    def _line(self, word: str, run: RunProgress, parts: Sequence[str]) -> str:
        """One line within the width; the name of the cell is what gives way."""
        head, tail = f"{self._counter()} {word:9} ", "  ".join(parts)
        room = max(12, self._console.width - len(head) - len(tail) - 2)
        name = shortened(run.name, room).ljust(min(self._width, room, 30))
        return shortened(f"{head}{name}  {tail}".rstrip(), self._console.width)

    def _counter(self) -> str:
        total = len(self._runs) + self._done_before
        ended = self._done_before + sum(run.state in FINISHED for run in self._runs)
        return f"[{ended:>{len(str(total))}}/{total}]"

    def _table(self) -> Table:
        """All cells, the most urgent ones where the screen is too small."""
        room = max(1, self._console.height - 4)
        runs = list(self._runs)
        if len(runs) > room:
            runs = sorted(runs, key=lambda run: URGENT.index(run.state))[:room]
        table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
        name_width = max(12, self._console.width - CURVE - 40)
        for header in ("cell", "step", "reward", "entropy", "", "left"):
            table.add_column(header, no_wrap=True, justify="right" if header in ("reward", "left") else "left")
        for run in runs:
            table.add_row(shortened(run.name, name_width), *self._row(run))
        if len(runs) < len(self._runs):
            table.add_row(f"... and {len(self._runs) - len(runs)} more")
        return table

    def _row(self, run: RunProgress) -> list[str]:
        step = f"{run.status.step}/{run.status.steps}" if run.status and run.status.steps else ""
        reward, entropy = (run.metrics.get(key) for key in ("rollout/reward", "policy/entropy"))
        figures = [step, "" if reward is None else f"{reward:.3f}", "" if entropy is None else f"{entropy:.3f}"]
        if run.starting is not None:
            phase, seconds = run.starting
            return [*figures, shortened(f"{phase} {duration(seconds)}", CURVE), ""]
        curve = sparkline(run.entropies, CURVE, ascii_only=self._console.options.ascii_only)
        if run.state != "RUNNING":
            return [*figures, curve, run.state.lower()]
        return [*figures, curve, duration(run.left_s) if run.left_s is not None else ""]

    def _summary(self) -> str:
        failed = sum(run.state == "FAILED" for run in self._runs)
        waiting = sum(run.state in ("PLANNED", "QUEUED") for run in self._runs)
        left = left_s(self._runs, self._concurrency)
        parts = [
            self._counter(),
            f"{waiting} waiting" if waiting else "",
            f"{failed} failed" if failed else "",
            f"left {duration(left)}" if left else "",
        ]
        return "  ".join(filter(None, parts))


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """A curve of block characters, its lowest value the lowest block: one a value, or the means of ``width`` stretches.

    Dimensionless; a curve that does not move is drawn in the middle. Empty below two values.
    """
    blocks = "_.-=^" if ascii_only else "▁▂▃▄▅▆▇█"
    if len(values) < 2:
        return ""
    count = min(width, len(values))
    cuts = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    if high == low:
        return blocks[len(blocks) // 2] * count
    return "".join(blocks[round((mean - low) / (high - low) * (len(blocks) - 1))] for mean in means)


def left_s(runs: Sequence[RunProgress], concurrency: int) -> float | None:
    """Seconds until all runs have ended, at the mean speed of those that have made a step."""
    speeds = [run.step_s for run in runs if run.step_s is not None]
    if not speeds:
        return None
    usual = sum(speeds) / len(speeds)
    open_runs = [run for run in runs if run.state not in (*FINISHED, "LOST")]
    steps = sum(max(0, run.status.steps - run.status.step) for run in open_runs if run.status)
    return usual * steps / min(concurrency, max(1, len(open_runs)))
