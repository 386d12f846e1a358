"""Many launchers of one sweep at once: called by ``python -m benchmarks.resilience --launchers N``."""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.small_sweep import CELLS, PATIENCE_S, Sweep, differences


def crowd(place: Path, number: int) -> int:
    """Start ``number`` launchers of one grid at once, and print what became of it; the exit code is 1 if anything
    differs from a grid with one launcher."""
    since = time.monotonic()
    reference, sweep = Sweep(output=place / "undisturbed"), Sweep(output=place / "crowd")
    others = [Sweep(output=sweep.output) for _ in range(number - 1)]
    try:
        reference.finish()
        for other in others:
            other.start()
        sweep.finish()
        codes = [other.launcher.wait(PATIENCE_S) for other in others if other.launcher is not None]
    finally:
        for each in (reference, sweep, *others):
            each.end()
    found = differences(reference, sweep)
    attempts = [json.loads(path.read_text())["attempt"] for path in sweep.output.glob("runs/*/status.json")]
    found += [f"a cell was started {attempt} times" for attempt in attempts if attempt != 1]
    print(f"{number} launchers of {CELLS} cells in {(time.monotonic() - since) / 60:.0f} min; other exit codes {codes}")
    print("\n".join(found) or "every cell was trained once and is equal to the undisturbed one")
    return 1 if found else 0
