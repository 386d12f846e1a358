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
from benchmarks.testbed_table import row

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


def ledger(wide: pd.DataFrame) -> str:
    """Measured and predicted change of every step that has a ledger, nats."""
    found = wide.dropna(subset=["ledger/measured", "ledger/predicted"])
    changes = zip(found["ledger/measured"], found["ledger/predicted"], strict=True)
    return ", ".join(f"{measured:+.3f} ({predicted:+.3f})" for measured, predicted in changes)


def lines(study: dashboards.Frames) -> list[str]:
    """A line for each level."""
    wide = study.wide([ENTROPY, "ledger/measured", "ledger/predicted"])
    found = []
    for level in study.runs.sort_values("level_index")["level"].unique():
        finals = study.finals[study.finals["level"] == level]
        if finals.empty:
            continue
        entropy = finals[finals["metric"] == ENTROPY].sort_values("seed")["value"]
        run = wide[wide["level"] == level]
        first = run[run["step"] == 0][ENTROPY].mean()
        means = finals.groupby("metric")["value"].mean()
        rest = (f"{means.get(metric, np.nan):.3f}" for metric in AT_THE_END)
        each = ", ".join(f"{value:.2f}" for value in entropy)
        ends = f"{first:.2f} → {entropy.mean():.2f} ({each})"
        found.append(row(level, ends, f"{run[ENTROPY].mean():.2f}", *rest, ledger(run)))
    return found


def main(folder: Path) -> None:
    """Print a Markdown table for every record in ``folder``."""
    for record in sorted(path for path in folder.iterdir() if path.is_dir()):
        print(f"\n**{record.name.replace('_', ' ')}**\n")
        print(
            row(
                "level",
                "entropy, nats (each seed)",
                "over the run",
                *AT_THE_END.values(),
                "ledger, measured (predicted)",
            )
        )
        print(row(*["---"] * (4 + len(AT_THE_END))))
        print("\n".join(lines(dashboards.load(record.name, str(record)))))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDS)
