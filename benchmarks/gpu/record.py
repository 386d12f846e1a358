"""The record of a GPU check: a JSON file with all that was found, and its table as Markdown."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import git, machine, versions
from benchmarks.gpu.shapes import SHAPES

COLUMNS = {
    "generate_s": "sample s",
    "update_s": "update s",
    "sync_s": "sync s",
    "step_s": "step s",
    "generate_tokens_s": "sampled/s",
    "update_tokens_s": "trained/s",
    "update_peak_frac": "of peak",
    "decode_bandwidth_frac": "of bandwidth",
    "generate_peak_gib": "sample GiB",
    "update_peak_gib": "update GiB",
    "logprob_gap_mean": "gap mean",
}


def table(parts: list[dict[str, Any]]) -> str:
    """The record as Markdown."""
    lines = []
    for part in parts:
        if part["name"] == "ceilings":
            lines.append(
                f"{part.get('card', '?')}: {part.get('matmul_tflops', float('nan')):.0f} TFLOP/s in a bfloat16 matmul "
                f"of 8192^2, {part.get('copy_gb_s', float('nan')):.0f} GB/s in a copy of 4 GiB (read and written)."
            )
        elif part["name"] == "tests":
            tests = part.get("tests", {})
            counts = {kind: sum(one["outcome"] == kind for one in tests.values()) for kind in ("passed", "skipped")}
            bad = [name for name, one in tests.items() if one["outcome"] in ("failure", "error")]
            lines.append(f"Tests: {counts['passed']} passed, {counts['skipped']} skipped, {len(bad)} failed.")
            lines += [f"- failed: {name}: {tests[name].get('message', '').splitlines()[:1]}" for name in bad]
    shapes = [part for part in parts if part["name"] in SHAPES]
    if shapes:
        lines += ["", "| shape | responses x tokens | " + " | ".join(COLUMNS.values()) + " |"]
        lines.append("|---" * (len(COLUMNS) + 2) + "|")
        for part in shapes:
            cells = [f"{part[key]:.3g}" if key in part else "-" for key in COLUMNS]
            size = f"{part.get('responses', '?')} x {part.get('tokens', '?')}"
            lines.append(f"| {part['name']} | {size} | " + " | ".join(cells) + " |")
    lines += ["", *(f"FAILED {part['name']}: {part['error']}" for part in parts if part["error"])]
    return "\n".join(lines).rstrip()


def write_record(parts: list[dict[str, Any]], output: Path) -> Path:
    """``DATE-gpu.json`` and ``.md``; returns the path of the first."""
    now = datetime.datetime.now(datetime.UTC)
    document = {
        "command": "python -m benchmarks.gpu " + " ".join(sys.argv[1:]),
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git("describe", "--always", "--dirty"),
        "machine": machine(),
        "versions": versions(),
        "parts": parts,
    }
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{now:%Y-%m-%d-%H%M}-gpu.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    heading = (
        f"# GPU check, {document['date']}\n\n`{document['command']}`, commit {document['commit'] or 'unknown'}\n\n"
    )
    path.with_suffix(".md").write_text(heading + table(parts) + "\n")
    return path
