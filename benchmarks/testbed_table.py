"""The table of the model card: do the published signs come out on the testbed?

    benchmarks/testbed.sh && python benchmarks/testbed_table.py [outputs/testbed]

Reads run folders. A comparison is the paired difference of policy entropy (at temperature 1) over five seeds, with
a 95 % t interval, twice: at the end (mean of the last five steps) and over the whole run (mean of all steps).
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t

LAST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPair:
    """Two levels of a factor, and which way the literature says entropy goes from the first to the second."""

    study: str
    first: str
    second: str
    sign: int
    claim: str


COMPARISONS = (
    LevelPair(study="off_policy_updates", first="1", second="4", sign=-1, claim="more updates per rollout: lower"),
    LevelPair(study="off_policy_updates", first="4", second="8", sign=-1, claim="more updates per rollout: lower"),
    LevelPair(study="data_diversity", first="8", second="64", sign=1, claim="more distinct prompts: higher"),
    LevelPair(study="data_diversity", first="64", second="512", sign=1, claim="more distinct prompts: higher"),
    LevelPair(study="temperature", first="0.6", second="1", sign=1, claim="higher sampling temperature: higher"),
    LevelPair(study="clip_high", first="0.2", second="0.5", sign=1, claim="higher upper clip: higher"),
    LevelPair(study="clip_high", first="0.02", second="0.5", sign=1, claim="higher upper clip: higher"),
    LevelPair(study="clip_high, random rewards", first="0.2", second="0.5", sign=1, claim="higher upper clip: higher"),
    LevelPair(study="clip_high, random rewards", first="0.02", second="0.5", sign=1, claim="higher upper clip: higher"),
    LevelPair(
        study="advantage_weights", first="positive only", second="negative only", sign=1, claim="negative only: higher"
    ),
    LevelPair(study="advantage_weights", first="positive only", second="both", sign=1, claim="both signs: higher"),
    LevelPair(study="entropy_coefficient", first="0", second="0.03", sign=1, claim="entropy bonus: higher"),
    LevelPair(study="entropy_coefficient", first="0.03", second="0.3", sign=1, claim="larger bonus: explodes"),
)


def study_of(document: dict[str, Any]) -> str:
    """The name of the factor, and whether rewards were random."""
    return document["factor"]["name"] + (", random rewards" if "shaping=random" in document.get("command", "") else "")


def cells(folder: Path) -> dict[str, dict[tuple[str, int], str]]:
    """study -> (level, seed) -> signature of the completed cells, from the sweep documents."""
    found: dict[str, dict[tuple[str, int], str]] = {}
    for path in folder.glob("sweeps/*/sweep.json"):
        document = json.loads(path.read_text())
        study = found.setdefault(study_of(document), {})
        for cell in document["cells"]:
            status = folder / "runs" / cell["signature"] / "status.json"
            if status.exists() and json.loads(status.read_text())["state"] == "COMPLETED":
                study[str(cell["level"]), int(cell["seed"])] = cell["signature"]
    return found


def final(run: Path) -> dict[str, float]:
    """Last values of a finished run: means of the last five steps, and the last evaluation."""
    lines = [json.loads(line)["metrics"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "policy/entropy_t1" in line][-LAST:]
    keys = ("policy/entropy_t1", "rollout/reward", "diversity/distinct_responses")
    means = {key: statistics.fmean(step[key] for step in steps) for key in keys}
    means["whole run"] = statistics.fmean(line["policy/entropy_t1"] for line in lines if "policy/entropy_t1" in line)
    return means | {key: value for key, value in lines[-1].items() if key.startswith("eval/")}


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % t interval."""
    half = t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    return statistics.fmean(differences), float(half)


def verdict(mean: float, half: float, sign: int) -> str:
    """In words."""
    if abs(mean) <= half:
        return "no clear difference"
    return "as published" if mean * sign > 0 else "**opposite**"


SHOWN = {
    "policy/entropy_t1": "final entropy",
    "rollout/reward": "reward",
    "diversity/distinct_responses": "distinct responses",
    "eval/heldout/avg_at_16": "held-out avg@16",
    "eval/heldout/pass_at_16": "held-out pass@16",
}


def row(*values: object) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, values))} |"


def compared(item: LevelPair, table: dict[tuple[str, int], str], runs: Path) -> str:
    """The row of one comparison, over the seeds that both levels have."""
    cells = [f"{item.study}: {item.first} → {item.second}", item.claim]
    seeds = [seed for level, seed in table if level == item.first and (item.second, seed) in table]
    if len(seeds) < 2:
        return row(*cells, "not run yet", "", "", "")
    before, after = ([final(runs / table[level, seed]) for seed in seeds] for level in (item.first, item.second))
    for key in ("policy/entropy_t1", "whole run"):
        mean, half = interval([b[key] - a[key] for a, b in zip(before, after, strict=True)])
        first, second = (statistics.fmean(run[key] for run in group) for group in (before, after))
        cells += [f"{first:.3f} → {second:.3f}: {mean:+.4f} ± {half:.4f}", verdict(mean, half, item.sign)]
    return row(*cells)


def main(folder: Path) -> None:
    """Print both tables as Markdown."""
    studies = cells(folder)
    print(row("comparison", "published", "last five steps, nats", "", "whole run, nats", ""))
    print(row(*["---"] * 6))
    for item in COMPARISONS:
        if item.study in studies:
            print(compared(item, studies[item.study], folder / "runs"))
    print()
    print(row("level", *SHOWN.values()))
    print(row(*["---"] * (1 + len(SHOWN))))
    for study, table in sorted(studies.items()):
        for level in dict.fromkeys(level for level, _ in table):
            runs = [final(folder / "runs" / signature) for (name, _), signature in table.items() if name == level]
            print(row(f"{study} {level}", *(f"{statistics.fmean(run[key] for run in runs):.3f}" for key in SHOWN)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/testbed"))
