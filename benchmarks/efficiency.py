"""Busy time of training steps over wall time of a sweep of 12 cells.

    python -m benchmarks.efficiency [--steps 40] [OUTPUT_FOLDER]

Without a folder it runs the sweep: three learning rates, four seeds, everything else at its default. Wall time is that
of the whole command, from the shell's point of view; of a folder given, from the planning of its cells to its last
recorded step. Busy is the sum of ``time/step_s`` over all runs, divided by the runs that may go on at once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.common import NUM_THREADS, ROOT, environment, save

SWEEP = ("-m", "optim.lr=1e-4,3e-4,1e-3", "seed=range(4)", "study.name=efficiency", "launcher.slots=1")


def busy(runs: list[list[dict[str, Any]]]) -> dict[str, float]:
    """Seconds of all steps of all runs by part; each run is the list of its step records."""
    keys = ("time/step_s", "time/eval_s", "time/metrics_s", "time/accounting_s")
    return {key: sum(line["metrics"].get(key, 0.0) for run in runs for line in run) for key in keys}


def gaps(runs: list[list[dict[str, Any]]]) -> list[float]:
    """Seconds between the last step of one run and the begin of the next one's first, in order of time; one slot."""
    spans = sorted((run[0]["time"] - run[0]["metrics"]["time/step_s"], run[-1]["time"]) for run in runs if run)
    return [begin - end for (_, end), (begin, _) in itertools.pairwise(spans)]


def efficiency(folder: Path, wall: float | None, slots: int) -> dict[str, Any]:
    """What a finished sweep did with its time."""
    runs = [ours.steps(path.parent) for path in sorted(folder.glob("runs/*/timings.jsonl"))]
    begin = min(path.stat().st_mtime for path in folder.glob("runs/*/run.yaml"))  # written as the sweep is planned
    if wall is None:
        wall = max(run[-1]["time"] for run in runs) - begin
    parts = busy(runs)
    return {
        "cells": len(runs),
        "steps": sum(map(len, runs)),
        "wall_s": wall,
        "busy_s": parts,
        "efficiency": parts["time/step_s"] / slots / wall,
        "gaps_s": gaps(runs),
        "planned_to_first_step_s": min(run[0]["time"] - run[0]["metrics"]["time/step_s"] for run in runs) - begin,
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="output folder of a finished sweep")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--slots", type=int, default=1, help="runs at once, for a folder given")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(efficiency(options.folder, None, options.slots), indent=1))
        return
    with tempfile.TemporaryDirectory() as scratch:
        more = [f"output={scratch}/outputs", f"steps={options.steps}", f"hardware.num_threads={NUM_THREADS}"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "sweep.py", *SWEEP, *more], cwd=ROOT, env=environment(), check=True)
        data = efficiency(Path(scratch) / "outputs", time.perf_counter() - start, 1)
    print(json.dumps(data, indent=1))
    save("efficiency", {"steps_per_run": options.steps, **data})


if __name__ == "__main__":
    main()
