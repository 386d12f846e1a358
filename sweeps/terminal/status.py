"""The table of ``python -m sweeps status``: a line per cell, printed once or, with ``--watch``, kept up to date."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

from sweeps.plan.plan import PIPED_WIDTH, aligned, duration
from sweeps.runs.progress import RunProgress
from sweeps.terminal.progress import URGENT, left_s
from trainer.contract.liveness import SILENT_S, silent_s

HEADER = ("level", "seed", "state", "step", "reward", "entropy", "speed", "left")
EXPLAINED = ("FAILED", "LOST", "CANCELLED", "PLANNED", "PREEMPTED")
LIVE = ("QUEUED", "RUNNING", "PREEMPTED")


def status_lines(
    runs: Sequence[RunProgress], *, concurrency: int = 1, height: int | None = None, width: int = PIPED_WIDTH
) -> list[str]:
    """A table of the cells and a summary; ``height`` limits the number of lines to the most urgent ones.

    Long levels are shortened to fit ``width``. A reason that does not fit beside its cell stands below it, or is cut
    where lines are few.
    """
    counts = Counter(run.state for run in runs)
    shown: Sequence[RunProgress] = runs
    if height is not None and len(runs) > height - 4:
        shown = sorted(runs, key=lambda run: URGENT.index(run.state))[: max(1, height - 5)]
    rest = [f"... and {len(runs) - len(shown)} more"] if len(shown) < len(runs) else []
    left = left_s(runs, concurrency) if counts["RUNNING"] else None
    total = ", ".join(f"{counts[state]} {state.lower()}" for state in URGENT if counts[state])
    cells = aligned([HEADER, *map(_row, shown)], width)
    table = cells[:1]
    for cell, run in zip(cells[1:], shown, strict=True):
        note = _note(run)
        if not note or len(cell) + 2 + len(note) <= width or height is not None:
            table.append(f"{cell}  {note}".rstrip()[:width])
        else:
            table += [cell, *textwrap.wrap(note, width, initial_indent="    ", subsequent_indent="    ")]
    return [*table, *rest, "", total + (f"; left about {duration(left)}" if left else "")]


def _row(run: RunProgress) -> tuple[str, ...]:
    reward, entropy = (run.metrics.get(key) for key in ("rollout/reward", "policy/entropy"))
    running, status = run.state == "RUNNING", run.status
    return (
        run.level,
        run.seed,
        run.state,
        f"{status.step}/{status.steps}" if status else "",
        "" if reward is None else f"{reward:.3f}",
        "" if entropy is None else f"{entropy:.3f}",
        f"{run.step_s:.2f} s/step" if run.step_s is not None else "",
        duration(run.left_s) if running and run.left_s is not None else "",
    )


def _note(run: RunProgress) -> str:
    """Why a run does not proceed, or for how long it has sent no heartbeat."""
    if run.damage is not None:
        return run.damage
    if run.state in EXPLAINED:
        return (run.status.message if run.status else None) or ""
    if run.starting is not None:
        return f"{run.starting[0]}, {duration(run.starting[1])}"
    silence = silent_s(run.run_dir) if run.state == "RUNNING" else None
    return f"silent for {duration(silence)}" if silence is not None and silence > SILENT_S else ""


def show(
    runs: Sequence[RunProgress],
    stream: TextIO,
    *,
    before_each: Callable[[], object],
    concurrency: int,
    every_s: float = 2.0,
) -> None:
    """Keep the table up to date until no run is live or queued; ``before_each`` is called before each reading."""
    live, before = stream.isatty(), list[str]()
    while True:
        start = time.monotonic()
        before_each()
        for run in runs:
            run.refresh()
        size = shutil.get_terminal_size()
        height, width = (size.lines, size.columns - 1) if live else (None, PIPED_WIDTH)
        lines = status_lines(runs, concurrency=concurrency, height=height, width=width)
        if live:  # one write, home and not clear: nothing flickers
            text = "".join(f"{line[:width]}\x1b[K\n" for line in lines)
            stream.write(f"\x1b[H{text}\x1b[J")
        elif lines != before:
            stream.write("\n".join(lines) + "\n")
        stream.flush()
        before = lines
        if all(run.state not in LIVE for run in runs):
            return
        time.sleep(max(every_s, 10 * (time.monotonic() - start)))
