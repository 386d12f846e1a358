"""The page of one run's responses, token by token, read from its folder; the viewer is the report's.

Responses are those that the run kept (``rollouts/``, all of a step), and of other steps those of its ledgers
(``tokens.jsonl``, some of a step).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dashboards.page.packing import compact_json
from dashboards.page.page import render
from dashboards.page.tokens import response_row
from dashboards.store.files import write_atomically
from dashboards.store.store import files_in

MOST_KEPT = 1000
"""Responses in a page: about 12 MB of numbers at 400 tokens each."""
_NEEDED = {"step", "update", "prompt", "reward", "tokens", "influence", "entropy", "logprobs", "advantage", "ratio"}

ONLY = ("correct", "incorrect")
MOST = ("surprising", "influential")


def write_rollouts(folder: Path, path: Path | None, only: str | None = None, most: str | None = None) -> Path:
    """Write the page, by default as ``rollouts.html`` in the run's folder; where it is."""
    return write_atomically(rollouts_html(folder, only, most), path or folder / "rollouts.html")


def rollouts_html(folder: Path, only: str | None = None, most: str | None = None) -> str:
    """The page of the run in ``folder``; ValueError in one sentence where that has no responses.

    It holds at most :data:`MOST_KEPT` of them, evenly over the steps; with ``most`` those with the largest
    :func:`size`. ``only`` leaves out the correct or the incorrect ones.
    """
    kept = _kept(folder)
    rows = kept + _ledgers(folder / "tokens.jsonl", {row["step"] for row in kept})
    if not rows:
        raise ValueError(
            f"{folder / 'tokens.jsonl'} holds no response yet, nor does rollouts/: wait for the run's first ledger"
            if (folder / "tokens.jsonl").is_file()
            else f"{folder / 'tokens.jsonl'} is not there: give the folder of a run, OUTPUT/runs/SIGNATURE, that kept "
            "its rollouts (accounting.rollouts_every above 0) or had a ledger (accounting.ledger_every above 0, "
            "tracking.samples above 0)"
        )
    selected = chosen(rows, only, most)
    if not selected:
        raise ValueError(f"{folder} has no response of this kind among {len(rows)}: leave out --only or --most")
    shown = selected[:MOST_KEPT] if most else selected[:: -(-len(selected) // MOST_KEPT)]
    run = folder.resolve().name
    context = {
        "title": f"Responses of {run}",
        "run": run,
        "kept": len(shown),
        "left_out": len(rows) - len(shown),
        "where": "rollouts/ and tokens.jsonl" if kept else "tokens.jsonl",
        "chosen": ", ".join(words for words in (only and f"{only} ones", most and f"most {most} first") if words),
        "steps": len({row["step"] for row in shown}),
        "responses_json": compact_json([response_row(row, run, run) for row in shown]),
    }
    return render("rollouts.html.j2", context, with_figures=False, more_scripts=["tokens.js"])


def chosen(rows: Sequence[dict[str, Any]], only: str | None, most: str | None) -> list[dict[str, Any]]:
    """The rows that are ``only`` correct or incorrect, with ``most`` the largest :func:`size` first."""
    selected = [row for row in rows if only is None or row["correct"] == (only == "correct")]
    sizes = {id(row): size(row, most) for row in selected} if most else {}
    return (
        sorted((row for row in selected if sizes[id(row)] > 0), key=lambda row: -sizes[id(row)]) if most else selected
    )


def size(row: dict[str, Any], most: str) -> float:
    """How ``surprising`` a response is, -mean_t log p_t (nats), or how ``influential``, sum_t |influence_t| (nats of
    the mean entropy), as the page's orders have it; a response without influence has 0."""
    values = row["logprobs"] if most == "surprising" else row["influence"] or []
    numbers: list[float] = [value for value in values if value is not None and math.isfinite(value)]
    return -sum(numbers) / max(len(values), 1) if most == "surprising" else sum(map(abs, numbers))


def _kept(folder: Path) -> list[dict[str, Any]]:
    """Rows of every step that the run kept."""
    from pyarrow import ArrowException, parquet

    rows: list[dict[str, Any]] = []
    for path in files_in(folder / "rollouts"):
        try:
            rows += parquet.read_table(path).to_pylist()
        except (OSError, ArrowException) as error:
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    return rows


def _ledgers(path: Path, known: set[int]) -> list[dict[str, Any]]:
    """Rows of the ledgers, those of steps that are ``known`` apart."""
    rows: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break  # torn: the run writes it now, or died over it
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is damaged: {error}") from error
        if not isinstance(row, dict) or not row.keys() >= _NEEDED:
            raise ValueError(f"{path}, line {number} is no response token by token")
        rows.append({"correct": (row["reward"] or 0) > 0, **row})
    return [row for row in rows if row["step"] not in known]
