"""What the launcher adds to a cell: sweeps of trivial cells with the stand-in trainer, in jobs of their own or shared.

``python benchmarks/queue_overhead.py [--cells 12]``. The stand-in imports neither torch nor vLLM and spends 20 ms on
its one step, so what is measured is composing, run folders, Submitit's processes and the watching. The cost of a
cell is the slope between a sweep of two cells and one of ``--cells``. Prints a table and writes JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"
FEW = 2


def sweep(number: int, per_job: int) -> tuple[float, float]:
    """Wall and processor seconds of a sweep of ``number`` seeds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "sweep.py"), "-m", f"seed=range({number})", "steps=1", "tracking=none"]
        command += [f"launcher.trainer=[{FAKE}]", f"launcher.runs_per_job={per_job}", "launcher.slots=1"]
        return cost(command, folder)


def cost(command: list[str], folder: str) -> tuple[float, float]:
    """Wall and processor seconds of a command run in ``folder``."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure both ways of sharing jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "queue_overhead.json")
    options = parser.parse_args()
    sweep(1, 1)  # warms the file cache
    rows = {}
    for name, per_job in (("a job for each cell", 1), ("one job for all cells", options.cells)):
        few, many = sweep(FEW, per_job), sweep(options.cells, per_job)
        wall_s, cpu_s = ((b - a) / (options.cells - FEW) for a, b in zip(few, many, strict=True))
        rows[name] = {"wall_s_per_cell": wall_s, "cpu_s_per_cell": cpu_s, "first_s": few[0] - FEW * wall_s}
    print("| jobs | wall, s a cell | processor, s a cell | once per sweep, s |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['wall_s_per_cell']:.3f} | {row['cpu_s_per_cell']:.3f} | {row['first_s']:.1f} |")
    options.output.parent.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
    options.output.write_text(json.dumps({"machine": machine, "cells": options.cells, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
