"""The page of one run's responses, token by token, read from its folder; the viewer is the report's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dashboards.page.packing import compact_json
from dashboards.page.page import render, write_atomically
from dashboards.page.tokens import response_row

MOST_KEPT = 1000
"""Responses in a page, evenly over the steps: about 12 MB of numbers at 400 tokens each."""
_NEEDED = {"step", "update", "prompt", "reward", "tokens", "influence", "entropy", "logprobs", "advantage", "ratio"}


def write_rollouts(folder: Path, path: Path | None) -> Path:
    """Write the page, by default as ``rollouts.html`` in the run's folder; where it is."""
    return write_atomically(rollouts_html(folder), path or folder / "rollouts.html")


def rollouts_html(folder: Path) -> str:
    """The page of the run in ``folder``; ValueError in one sentence where that has no responses."""
    rows = _rows(folder / "tokens.jsonl")
    kept = rows[:: -(-len(rows) // MOST_KEPT)]
    run = folder.resolve().name
    context = {
        "title": f"Responses of {run}",
        "run": run,
        "kept": len(kept),
        "left_out": len(rows) - len(kept),
        "steps": len({row["step"] for row in kept}),
        "responses_json": compact_json([response_row(row, run, run) for row in kept]),
    }
    return render("rollouts.html.j2", context, with_figures=False, more_scripts=["tokens.js"])


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ValueError(
            f"{path} is not there: give the folder of a run, OUTPUT/runs/SIGNATURE, that had a ledger "
            "(accounting.ledger_every above 0, tracking.samples above 0)"
        )
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break  # torn: the run writes it now, or died over it
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is damaged: {error}") from error
        if not isinstance(row, dict) or not row.keys() >= _NEEDED:
            raise ValueError(f"{path}, line {number} is no response token by token")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no response yet: wait for the run's first ledger")
    return rows
