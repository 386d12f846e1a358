"""What ``make bench`` runs: every benchmark in a size that fits into about 15 minutes on two cores, then the tables.

    python -m benchmarks.bench [--check] [--only NAME ...]

``--check`` compares the ratios of the results at hand with those of the last commit and warns where one became worse
by more than a quarter; it measures nothing and never fails, because a slow minute of a machine is no defect.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.common import RESULTS, ROOT, git

SHORT = {
    "step_vs_trl": ("--rounds", "2", "--steps", "8"),
    "token_statistics": ("--rows", "512", "--rounds", "1"),
    "phases": ("--steps", "12"),
    "startup": ("--runs", "3", "--no-cold"),
    "efficiency": ("--steps", "4"),
    "growth": ("--steps", "6", "--stored", "12", "--axes", "batch", "updates"),
}
"""``realistic`` and the long forms of these are run by hand."""

TOLERANCE = 1.25


def ratios(name: str, data: dict[str, Any]) -> dict[str, float]:
    """The ratios of one result, all of them better when larger."""
    if name == "step_vs_trl":
        return {f"{item['updates']} updates, TRL / ours": item["faster"]["median"] for item in data["compared"]}
    if name == "realistic":
        return {"training phase, TRL / ours": data["faster"]["median"]}
    if name == "token_statistics":
        found = {}
        for item in data["times"]:
            place = f"{item['way']}, {item['rows']} tokens, {item['dtype']}"
            if item["way"].startswith("ours") and "faster_than_full" in item:
                found[f"{place}, time of full / ours"] = item["faster_than_full"]["median"]
                found[f"{place}, memory of full / ours"] = 1 / item["memory_of_full"]
        return found
    if name == "phases":
        return {f"{t['updates']} updates, step / observing": 1 / t["observing_share"] for t in data["tables"]}
    if name == "efficiency":
        return {"busy / wall": data["efficiency"]}
    if name == "startup":
        return {"first start / one more run": data["warm"]["to_first_step"] / data["warm"]["additional"]["median"]}
    return {}


def worse(name: str, now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """A sentence for every ratio that fell by more than :data:`TOLERANCE`."""
    old, new = ratios(name, before), ratios(name, now)
    return [
        f"{name}: {key} was {old[key]:.2f} and is {value:.2f}"
        for key, value in new.items()
        if key in old and value * TOLERANCE < old[key]
    ]


def check() -> list[str]:
    """Compare every result with the committed one."""
    warnings = []
    for path in sorted(RESULTS.glob("*.json")):
        committed = git("show", f"HEAD:{path.relative_to(ROOT)}")
        documents = [json.loads(text) for text in (path.read_text(), committed) if text]
        if len(documents) == 2 and all("data" in document for document in documents):
            warnings += worse(path.stem, *(document["data"] for document in documents))
    return warnings


def main() -> None:
    """Run, make the tables, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the last commit and measure nothing")
    parser.add_argument("--only", nargs="+", default=list(SHORT), choices=list(SHORT))
    options = parser.parse_args()
    if not options.check:
        for name in options.only:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *SHORT[name]], cwd=ROOT, check=True)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks.report"], cwd=ROOT, check=True)
    for warning in check():
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
