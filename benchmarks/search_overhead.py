"""What a search adds to a trial: searches of trivial trials with the stand-in trainer, one run a trial, one at a time.

``python -m benchmarks.search_overhead [--trials 22]``. The stand-in imports neither torch nor vLLM and spends 20 ms on
its step, so what is measured is asking, composing, run folders, Submitit's processes, telling and writing down. The
cost of a trial is the slope between a search of two trials and one of ``--trials``; that of a cell of an ordinary
sweep, measured the same way by ``queue_overhead.py``, is beside it. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.queue_overhead import FEW, ROOT, cost, sweep

LEARNER = ROOT / "tests" / "helpers" / "fake_learner.py"
SETTINGS = ("search.seeds=[0]", "search.rungs=[1]", "search.confirm_seeds=[]", "search.preset=false")


def search(trials: int, *more: str) -> tuple[float, float]:
    """Wall and processor seconds of a search of ``trials`` trials."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "sweep.py"), "-m", "search=clip", f"search.n_trials={trials}", *SETTINGS]
        command += [f"launcher.trainer=[{LEARNER}]", "launcher.slots=1", "steps=1", "tracking=none", *more]
        return cost(command, folder)


def main() -> None:
    """Measure searches with and without a pruner, and the queue alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=22)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "search_overhead.json")
    options = parser.parse_args()
    cases = {
        "a cell of a sweep": lambda number: sweep(number, 1),
        "a trial, no pruner": lambda number: search(number, "search.pruner=none"),
        "a trial, median pruner": lambda number: search(number),
    }
    sweep(1, 1)  # warms the file cache
    rows = {}
    for name, measure in cases.items():
        few, many = measure(FEW), measure(options.trials)
        wall_s, cpu_s = ((b - a) / (options.trials - FEW) for a, b in zip(few, many, strict=True))
        rows[name] = {"wall_s": wall_s, "cpu_s": cpu_s, "first_s": few[0] - FEW * wall_s}
    print("| what | wall, s | processor, s | once, s |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['wall_s']:.3f} | {row['cpu_s']:.3f} | {row['first_s']:.1f} |")
    options.output.parent.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
    options.output.write_text(json.dumps({"machine": machine, "trials": options.trials, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
