"""The table of docs/real_model.md: what the factors of benchmarks/real.sh do to a language model.

    benchmarks/real.sh && python -m benchmarks.real_table [outputs/records/real]

Reads the records that real.sh writes, or the committed ones. Two seeds have no useful interval, so the entropy of
each is shown.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import dashboards

RECORDS = Path("benchmarks/records/real")

AT_THE_END = {
    "rollout/reward": "reward",
    "diversity/distinct_4": "distinct-4",
    "diversity/self_bleu": "self-BLEU",
    "eval/heldout/ece": "held-out ECE",
    "eval/heldout/brier": "held-out Brier",
    "eval/heldout/pass_at_1": "held-out pass@1",
    "eval/heldout/pass_at_8": "held-out pass@8",
}
ENTROPY = "policy/entropy_t1"


def row(*values: object) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, values))} |"


def ledger(wide: pd.DataFrame) -> str:
    """Sums of the measured and of the predicted change over the steps that have a ledger, nats."""
    found = wide.dropna(subset=["ledger/measured", "ledger/predicted"])
    if found.empty:
        return "-"
    measured, predicted = found["ledger/measured"], found["ledger/predicted"]
    return f"{measured.mean():+.4f}, {predicted.mean():+.4f}"


def lines(study: dashboards.Frames) -> list[str]:
    """A line for each level."""
    wide = study.wide([ENTROPY, "ledger/measured", "ledger/predicted"])
    found = []
    for level in study.runs.sort_values("level_index")["level"].unique():
        finals = study.finals[study.finals["level"] == level]
        if finals.empty:
            continue
        entropy = finals[finals["metric"] == ENTROPY].sort_values("seed")["value"]
        first = wide[(wide["level"] == level) & (wide["step"] == 0)][ENTROPY].mean()
        means = finals.groupby("metric")["value"].mean()
        rest = (f"{means.get(metric, np.nan):.3f}" for metric in AT_THE_END)
        each = ", ".join(f"{value:.2f}" for value in entropy)
        found.append(
            row(level, f"{first:.2f} → {entropy.mean():.2f} ({each})", *rest, ledger(wide[wide["level"] == level]))
        )
    return found


def main(folder: Path) -> None:
    """Print a Markdown table for every record in ``folder``."""
    for record in sorted(path for path in folder.iterdir() if path.is_dir()):
        print(f"\n**{record.name.replace('_', ' ')}**\n")
        print(
            row(
                "level",
                "entropy at temperature 1, nats (each seed)",
                *AT_THE_END.values(),
                "ledger: measured, predicted",
            )
        )
        print(row(*["---"] * (3 + len(AT_THE_END))))
        print("\n".join(lines(dashboards.load(record.name, str(record)))))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDS)
