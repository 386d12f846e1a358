"""Progress of a sweep: a live table on a terminal, plain lines in a log file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from sweeps.plan.plan import aligned, duration
from sweeps.runs.progress import RunProgress
from trainer.contract.status import FINISHED


class Display:
    """Progress on a terminal: a block that is redrawn, or plain lines where the output is a file."""

    def __init__(
        self, runs: Sequence[RunProgress], *, done_before: int, concurrency: int, stream: TextIO | None = None
    ) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._runs = runs
        self._done_before = done_before
        self._concurrency = concurrency
        self._width = max((len(run.name) for run in runs), default=0)
        self._said: dict[Path, tuple[str, int]] = {}
        self._height = 0

    def update(self) -> None:
        """Print what changed since the last call."""
        for run in self._runs:
            run.refresh()
        lines = [line for run in self._runs if (line := self._news(run)) is not None]
        self._erase()
        for line in lines:
            print(line, file=self._stream)
        if self._live:
            rows = [self._row(run) for run in self._runs if run.state == "RUNNING"]
            width = shutil.get_terminal_size().columns - 1  # a wrapped line could not be erased again
            block = [line[:width] for line in [self._summary(), *(aligned(rows) if rows else [])]]
            print("\n".join(block), file=self._stream)
            self._height = len(block)
        self._stream.flush()

    def close(self) -> None:
        """Erase the live table."""
        self._erase()
        self._stream.flush()

    def _erase(self) -> None:
        if self._height:
            self._stream.write(f"\x1b[{self._height}A\x1b[J")
            self._height = 0

    def _news(self, run: RunProgress) -> str | None:
        """A line for a run that started, passed a quarter of its steps (each step of a single run), or ended."""
        quarter = 0
        if run.status and run.status.steps and run.state == "RUNNING":
            quarter = (
                run.lines if len(self._runs) == 1 else 0 if self._live else 4 * run.status.step // run.status.steps
            )
        before = self._said.setdefault(run.run_dir, (run.state, 0) if run.state in ("PLANNED", "QUEUED") else ("", 0))
        if (run.state, quarter) == before:
            return None
        self._said[run.run_dir] = (run.state, quarter)
        name = run.name.ljust(self._width)
        if run.state in FINISHED | {"LOST", "PREEMPTED"}:
            said = run.damage or (run.status.message if run.status else None)
            message = f"  {said}" if said else f"  in {duration(run.total_s)}"
            return f"{self._counter()} {run.state.lower():9} {name}  {'  '.join(run.figures())}{message}"
        if run.state != "RUNNING" or (self._live and len(self._runs) > 1):
            return None
        if quarter == 0 and run.lines == 0:
            return f"{self._counter()} running   {name}"
        left = f"  left {duration(run.left_s)}" if run.left_s is not None else ""
        return f"{self._counter()} running   {name}  {'  '.join(run.figures())}{left}"

    def _counter(self) -> str:
        total = len(self._runs) + self._done_before
        return f"[{self._done_before + self._ended():>{len(str(total))}}/{total}]"

    def _ended(self) -> int:
        return sum(run.state in FINISHED for run in self._runs)

    def _row(self, run: RunProgress) -> list[str]:
        figures = [*run.figures(), *[""] * 4][:4]
        return ["  " + run.name, *figures, f"left {duration(run.left_s)}" if run.left_s is not None else ""]

    def _summary(self) -> str:
        failed = sum(run.state == "FAILED" for run in self._runs)
        waiting = sum(run.state in ("PLANNED", "QUEUED") for run in self._runs)
        left = left_s(self._runs, self._concurrency)
        parts = [
            self._counter(),
            f"{waiting} waiting",
            f"{failed} failed" if failed else "",
            f"left {duration(left)}" if left else "",
        ]
        return "  ".join(filter(None, parts))


def left_s(runs: Sequence[RunProgress], concurrency: int) -> float | None:
    """Seconds until all runs have ended, at the mean speed of those that have made a step."""
    speeds = [run.step_s for run in runs if run.step_s is not None]
    if not speeds:
        return None
    usual = sum(speeds) / len(speeds)
    open_runs = [run for run in runs if run.state not in (*FINISHED, "LOST")]
    steps = sum(max(0, run.status.steps - run.status.step) for run in open_runs if run.status)
    return usual * steps / min(concurrency, max(1, len(open_runs)))
