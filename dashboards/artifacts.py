"""Sampled responses and reliability points: the artifacts of the cells as tidy frames.

Called by the report only, because each is one file (or download) per cell. Text in them comes from a model and is
hostile until escaped. Must not fail on a cell that logged none.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from dashboards.load import Study
from dashboards.store import open_store

SAMPLE_COLUMNS = ("signature", "level", "label", "level_index", "seed", "step", "prompt", "response", "reward")
RELIABILITY_COLUMNS = ("signature", "level", "label", "level_index", "seed", "step", "suite", "bin", "confidence",
                       "accuracy", "count")  # fmt: skip
_CELL_COLUMNS = ("signature", "level", "label", "level_index", "seed")


def load_samples(study: Study) -> pd.DataFrame:
    """Every logged sample: columns ``SAMPLE_COLUMNS``. Raises ValueError when a cell's table is unreadable."""
    return _gather(study, "samples.json", SAMPLE_COLUMNS)


def load_reliability(study: Study) -> pd.DataFrame:
    """Every reliability point: columns ``RELIABILITY_COLUMNS``; confidence and accuracy are fractions, count is the
    number of responses in the bin."""
    frame = _gather(study, "reliability.json", RELIABILITY_COLUMNS)
    return frame.astype({"confidence": "float64", "accuracy": "float64", "count": "float64"})


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
        rows += [{**record, **cell} for record in records]
    return pd.DataFrame(rows).reindex(columns=list(columns))
