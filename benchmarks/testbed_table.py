"""The table of the model card: do the published signs come out on the testbed?

    benchmarks/testbed.sh && python benchmarks/testbed_table.py [outputs/testbed]

Reads run folders; a comparison is the paired difference of final entropy (mean of the last five steps) over five
seeds, with a 95 % t interval and the exact two-sided sign-flip p-value.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t

LAST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two levels of a factor, and which way the literature says entropy goes from the first to the second."""

    study: str
    first: str
    second: str
    sign: int
    claim: str


COMPARISONS = (
    Comparison(study="off_policy_updates", first="1", second="4", sign=-1, claim="more updates per rollout: lower"),
    Comparison(study="off_policy_updates", first="4", second="8", sign=-1, claim="more updates per rollout: lower"),
    Comparison(study="data_diversity", first="8", second="64", sign=1, claim="more distinct prompts: higher"),
    Comparison(study="data_diversity", first="64", second="512", sign=1, claim="more distinct prompts: higher"),
    Comparison(study="clip_high", first="0.2", second="0.5", sign=1, claim="higher upper clip: higher"),
    Comparison(
        study="advantage_weights", first="positive only", second="negative only", sign=1, claim="negative only: higher"
    ),
)


def cells(folder: Path) -> dict[str, dict[tuple[str, int], str]]:
    """study -> (level, seed) -> signature of the completed cells, from the sweep documents."""
    found: dict[str, dict[tuple[str, int], str]] = {}
    for path in folder.glob("sweeps/*/sweep.json"):
        document = json.loads(path.read_text())
        study = found.setdefault(document["factor"]["name"], {})
        for cell in document["cells"]:
            status = folder / "runs" / cell["signature"] / "status.json"
            if status.exists() and json.loads(status.read_text())["state"] == "COMPLETED":
                study[str(cell["level"]), int(cell["seed"])] = cell["signature"]
    return found


def final(run: Path) -> dict[str, float]:
    """Last values of a finished run: means of the last five steps, and the last evaluation."""
    lines = [json.loads(line)["metrics"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "policy/entropy" in line][-LAST:]
    keys = ("policy/entropy", "rollout/reward", "diversity/distinct_responses")
    return {key: statistics.fmean(step[key] for step in steps) for key in keys} | {
        key: value for key, value in lines[-1].items() if key.startswith("eval/")
    }


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % t interval."""
    half = t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    return statistics.fmean(differences), float(half)


def sign_flip_p(differences: list[float]) -> float:
    """Share of the sign patterns whose mean is at least as far from 0 (two-sided; 1/16 is the least for five)."""
    observed = abs(sum(differences))
    patterns = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    return sum(value >= observed - 1e-12 for value in sums) / len(sums)


def verdict(mean: float, half: float, sign: int) -> str:
    """In words."""
    if abs(mean) <= half:
        return "no clear difference"
    return "as published" if mean * sign > 0 else "**opposite**"


SHOWN = {
    "policy/entropy": "final entropy",
    "rollout/reward": "reward",
    "diversity/distinct_responses": "distinct responses",
    "eval/heldout/avg_at_16": "held-out avg@16",
    "eval/heldout/pass_at_16": "held-out pass@16",
}


def row(*values: object) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, values))} |"


def compared(item: Comparison, table: dict[tuple[str, int], str], runs: Path) -> str:
    """The row of one comparison, over the seeds that both levels have."""
    seeds = [seed for level, seed in table if level == item.first and (item.second, seed) in table]
    before, after = (
        [final(runs / table[level, seed])["policy/entropy"] for seed in seeds] for level in (item.first, item.second)
    )
    differences = [b - a for a, b in zip(before, after, strict=True)]
    if len(differences) < 2:
        return row(f"{item.study}: {item.first} → {item.second}", item.claim, "", "not run yet", "", "")
    mean, half = interval(differences)
    return row(
        f"{item.study}: {item.first} → {item.second}",
        item.claim,
        f"{statistics.fmean(before):.4f} → {statistics.fmean(after):.4f}",
        f"{mean:+.4f} ± {half:.4f} ({len(seeds)} seeds)",
        f"{sign_flip_p(differences):.3f}",
        verdict(mean, half, item.sign),
    )


def main(folder: Path) -> None:
    """Print both tables as Markdown."""
    studies = cells(folder)
    print(row("comparison", "published", "final entropy, nats", "paired difference, 95 % interval", "p", "here"))
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
