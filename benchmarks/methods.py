"""Every published intervention side by side on the shipped model: where it ends, and what a step of it costs.

    python sweep.py -m factor=method seed=0,1,2 output=outputs/methods     # 129 runs of 40 steps, resumable
    python -m benchmarks.methods outputs/methods [--steps 7] [--no-cost]

The first table is read from the sweep: means over seeds, and the paired difference to GRPO with a 95 % t interval. The
cost is measured here: a few steps of every preset in one process, in two rounds of opposite order, each beside the runs
of plain GRPO before and after it; medians of steps, then the mean of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.common import RESULTS, save
from benchmarks.testbed_table import cells, final, interval
from sweeps.compose.compose import groups

BASE = "grpo"
EVERY = 6
"""Presets between two runs of the base."""
WARM_UP = 2
"""Steps of a run that are left out of its median."""
SHOWN = {
    "policy/entropy": "entropy",
    "rollout/reward": "reward",
    "eval/heldout/avg_at_16": "avg@16",
    "eval/heldout/pass_at_16": "pass@16",
    "eval/ood/pass_at_16": "pass@16 ood",
}


def presets() -> list[str]:
    """Every preset of ``conf/method`` but the base and what a search has tuned."""
    return [name for name in groups()["method"] if name != BASE and not name.startswith("tuned/")]


def order(names: Sequence[str]) -> list[str]:
    """The base before, between and behind groups of presets."""
    made = [BASE]
    for start in range(0, len(names), EVERY):
        made += [*names[start : start + EVERY], BASE]
    return made


def ratios(timed: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Seconds of a step over those of the base, the mean of its runs before and after; a base begins and ends."""
    found: dict[str, float] = {}
    spans = [(is_base, list(items)) for is_base, items in groupby(timed, key=lambda item: item[0] == BASE)]
    for before, (is_base, items), after in zip(spans, spans[1:], spans[2:], strict=False):
        if not is_base:
            base = statistics.fmean([before[1][-1][1], after[1][0][1]])
            found |= {name: seconds / base for name, seconds in items}
    return found


def measured(names: Sequence[str], steps: int) -> dict[str, float]:
    """One round: runs in the order given, all in one process."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"steps={steps}", "optim.updates_per_rollout=4", "evaluation=none", "tracking=none"]
        sequence = order(names)
        runs = [
            ours.make_run(Path(folder) / str(i), f"method={name}", "accounting=none", *overrides)
            for i, name in enumerate(sequence)
        ]
        ours.train(*runs)
        seconds = [
            statistics.median(step["metrics"]["time/step_s"] for step in ours.steps(run)[WARM_UP:]) for run in runs
        ]
    return ratios(list(zip(sequence, seconds, strict=True)))


def costs(steps: int) -> dict[str, float]:
    """Ratio of every preset: the mean of two rounds."""
    names = presets()
    there, back = measured(names, steps), measured(names[::-1], steps)
    return {BASE: 1.0} | {name: (there[name] + back[name]) / 2 for name in names}


def ends(output: Path) -> list[dict[str, Any]]:
    """A row per level of the sweep: means over its seeds, and the paired difference to the base."""
    table = cells(output)["method"]
    runs = {cell: final(output / "runs" / signature) for cell, signature in table.items()}
    rows = []
    for level in dict.fromkeys(level for level, _ in runs):
        seeds = sorted(seed for name, seed in runs if name == level)
        row: dict[str, Any] = {"method": level, "seeds": len(seeds)}
        row |= {key: statistics.fmean(runs[level, seed][key] for seed in seeds) for key in SHOWN}
        paired = [seed for seed in seeds if (BASE, seed) in runs]
        if level != BASE and len(paired) > 1:
            row["difference"] = {
                key: interval([runs[level, seed][key] - runs[BASE, seed][key] for seed in paired]) for key in SHOWN
            }
        rows.append(row)
    return rows


def main() -> None:
    """Read, measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=7, help="steps of a run that is timed")
    parser.add_argument("--no-cost", action="store_true", help="keep the costs of the last time")
    options = parser.parse_args()
    rows, path = ends(options.output), RESULTS / "methods.json"
    kept = json.loads(path.read_text())["data"]["step_ratio"] if options.no_cost and path.exists() else {}
    save("methods", {"table": rows, "step_ratio": kept if options.no_cost else costs(options.steps)})


if __name__ == "__main__":
    main()
