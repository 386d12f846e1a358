"""Which servo holds entropy at its target, how tightly, and what that costs in score.

    python sweep.py -m factor=entropy_target output=outputs/servos tracking=none accounting.ledger_every=0 \\
        accounting.every=0                                             # 42 runs of 40 steps, resumable
    python -m benchmarks.servos outputs/servos

Reads run folders; means over seeds, each with the standard deviation over them.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.common import save
from benchmarks.testbed_table import cells

LAST = 10
"""Steps at the end of a run over which entropy is judged: a servo has had thirty to get there."""
SHOWN = ("entropy", "deviation", "reward", "avg@16", "pass@16")


def held(run: Path, target: float) -> dict[str, float]:
    """Means of the last steps, ``sqrt(mean (entropy - target)^2)`` over them in nats, and the scores at the end."""
    lines = [json.loads(line)["metrics"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "policy/entropy" in line][-LAST:]
    entropy = [step["policy/entropy"] for step in steps]
    return {
        "entropy": statistics.fmean(entropy),
        "deviation": statistics.fmean((value - target) ** 2 for value in entropy) ** 0.5,
        "reward": statistics.fmean(step["rollout/reward"] for step in steps),
        "avg@16": lines[-1]["eval/heldout/avg_at_16"],
        "pass@16": lines[-1]["eval/heldout/pass_at_16"],
    }


def table(output: Path) -> dict[str, Mapping[str, object]]:
    """level -> number of seeds, and (mean, standard deviation) of every value."""
    levels: dict[str, list[dict[str, float]]] = {}
    for (level, _), signature in cells(output)["entropy_target"].items():
        levels.setdefault(level, []).append(held(output / "runs" / signature, float(level.partition(",")[0])))
    return {
        level: {"seeds": len(runs)}
        | {
            key: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
            for key in SHOWN
            for values in [[run[key] for run in runs]]
        }
        for level, runs in levels.items()
    }


def main(output: Path) -> None:
    """Read and save."""
    save("servos", {"table": table(output)})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/servos"))
