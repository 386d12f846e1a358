"""Sampled responses and reliability points: the artifacts of the cells as tidy frames.

Text in them comes from a model and is hostile until escaped. Must not fail on a cell that logged none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboards.store.store import open_store
from dashboards.study.load import Study

SAMPLE_COLUMNS = (
    "signature",
    "level",
    "label",
    "level_index",
    "seed",
    "step",
    "source",
    "prompt",
    "response",
    "reward",
)
RELIABILITY_COLUMNS = (
    "signature",
    "level",
    "label",
    "level_index",
    "seed",
    "step",
    "suite",
    "confidence_of",
    "confidence",
    "accuracy",
    "count",
)
_CELL_COLUMNS = ("signature", "level", "label", "level_index", "seed")


def load_samples(study: Study) -> pd.DataFrame:
    """Every logged sample: columns ``SAMPLE_COLUMNS``. Raises ValueError when a cell's table is unreadable."""
    return _gather(study, "samples.json", SAMPLE_COLUMNS)


def load_reliability(study: Study) -> pd.DataFrame:
    """Every reliability point: columns ``RELIABILITY_COLUMNS``; confidence and accuracy are fractions, count is the
    number of responses in the bin."""
    frame = _gather(study, "reliability.json", RELIABILITY_COLUMNS)
    numbers = frame.astype({"confidence": "float64", "accuracy": "float64", "count": "float64"})
    return numbers.assign(confidence_of=numbers["confidence_of"].fillna("logprob"))


def load_provenance(study: Study) -> dict[str, str]:
    """Short facts from the ``provenance.json`` of the newest run that has one: packages, Python, hardware."""
    store = open_store(study.uri)
    for run in sorted(study.runs.values(), key=lambda run: run.start_time, reverse=True):
        if text := store.read_text(run, "provenance.json"):
            try:
                document = json.loads(text)
            except ValueError as error:
                raise ValueError(f"artifact provenance.json of run {run.run_id} cannot be read: {error}") from error
            return provenance_facts(document)
    return {}


def provenance_facts(document: Mapping[str, Any]) -> dict[str, str]:
    """A provenance document as one short line a fact; the diff, which is long, only as "uncommitted changes"."""
    git, facts = document.get("git") or {}, {}
    if "dirty" in git:
        facts["uncommitted changes"] = "yes" if git["dirty"] else "no"
    for key in ("python", "packages", "hardware"):
        value = document.get(key)
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {_brief(item)}" for name, item in value.items() if item not in (None, [], ""))
        if value:
            facts[key] = str(value)
    return facts


def _brief(value: Any) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def table_records(document: Any) -> list[dict[str, Any]]:
    """Rows of a table: MLflow's ``{"columns": [...], "data": [[...]]}`` or a plain list of records."""
    if isinstance(document, dict) and "columns" in document:
        return [dict(zip(document["columns"], row, strict=True)) for row in document.get("data", [])]
    if isinstance(document, list) and all(isinstance(row, dict) for row in document):
        return document
    raise ValueError("neither a table with columns and data nor a list of records")


def _gather(study: Study, path: str, columns: tuple[str, ...]) -> pd.DataFrame:
    store = open_store(study.uri)
    rows: list[dict[str, Any]] = []
    for cell in study.cells[list(_CELL_COLUMNS)].to_dict("records"):
        run = study.runs.get(cell["signature"])
        text = store.read_text(run, path) if run else None
        if text is None or run is None:
            continue
        try:
            records = table_records(json.loads(text))
        except ValueError as error:
            raise ValueError(f"artifact {path} of run {run.run_id} cannot be read: {error}") from error
        whose = {str(key): value for key, value in cell.items()}
        rows += [{**record, **whose} for record in records]
    return pd.DataFrame(rows).reindex(columns=list(columns))
