"""Seconds per training step by phase, from the timings that runs leave behind.

    python benchmarks/phases.py [outputs] [--since STEP]

Medians over steps (the first five of each run are warm-up), then over runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path


def phases(run: Path, since: int) -> dict[str, float]:
    """Median of every timing of one run; phases that do not come every step are averaged over all steps instead."""
    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    steps = [line["metrics"] for line in lines if line["step"] >= since and "time/step_s" in line["metrics"]]
    keys = sorted({key for step in steps for key in step})
    every = {key: statistics.median(step[key] for step in steps) for key in keys if all(key in step for step in steps)}
    rare = {f"{key} (mean)": sum(s.get(key, 0.0) for s in steps) / len(steps) for key in keys if key not in every}
    return every | rare


def main() -> None:
    """Print one line a phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument("--since", type=int, default=5, help="first step that counts")
    options = parser.parse_args()
    runs = [phases(path.parent, options.since) for path in sorted(options.output.glob("runs/*/timings.jsonl"))]
    print(f"{len(runs)} runs")
    for key in sorted({key for run in runs for key in run}):
        values = [run[key] for run in runs if key in run]
        print(f"{key:32s} {statistics.median(values):10.4g}   (runs: {min(values):.4g} to {max(values):.4g})")


if __name__ == "__main__":
    main()
