"""The artifacts of the cells as data frames: sampled responses, their tokens, reliability points, provenance.

Text in them comes from a model and has to be escaped in HTML. A cell without artifacts has no rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dashboards.store.open import open_store
from dashboards.sweep.load import SweepData

_CELL_COLUMNS = ("signature", "level", "label", "level_index", "seed")
SAMPLE_COLUMNS = (
    *_CELL_COLUMNS,
    "step",
    "source",
    "prompt",
    "response",
    "reward",
)
RELIABILITY_COLUMNS = (
    *_CELL_COLUMNS,
    "step",
    "suite",
    "confidence_of",
    "confidence",
    "accuracy",
    "count",
)
TOKEN_COLUMNS = (
    *_CELL_COLUMNS,
    "step",
    "update",
    "prompt",
    "reward",
    "tokens",
    "influence",
    "entropy",
    "logprobs",
    "advantage",
    "ratio",
    "coefficient",
)
CONTAMINATION_COLUMNS = (
    *_CELL_COLUMNS,
    "suite",
    "prompts",
    "overlapping",
    "share",
    "words",
    "example",
)
ROLLOUT_COLUMNS = (
    *_CELL_COLUMNS,
    "step",
    "group",
    "prompt_id",
    "prompt",
    "response",
    "answer",
    "reward",
    "correct",
    "finish_reason",
    "tokens",
    "token_ids",
    "logprobs",
    "entropy",
    "advantage",
    "influence",
)


def load_samples(sweep: SweepData) -> pd.DataFrame:
    """Every logged sample: columns ``SAMPLE_COLUMNS``. Raises ValueError when a cell's table is unreadable."""
    return _gather(sweep, "samples.json", SAMPLE_COLUMNS)


def load_reliability(sweep: SweepData) -> pd.DataFrame:
    """Every reliability point: columns ``RELIABILITY_COLUMNS``; confidence and accuracy are fractions, count is the
    number of responses in the bin."""
    frame = _gather(sweep, "reliability.json", RELIABILITY_COLUMNS)
    numbers = frame.astype({"confidence": "float64", "accuracy": "float64", "count": "float64"})
    return numbers.assign(confidence_of=numbers["confidence_of"].fillna("logprob"))


def load_contamination(sweep: SweepData) -> pd.DataFrame:
    """What of each evaluation suite is trained on: columns ``CONTAMINATION_COLUMNS``; ``share`` is a fraction and
    ``words`` the number of words in a row that count as an overlap."""
    return _gather(sweep, "contamination.json", CONTAMINATION_COLUMNS)


def load_tokens(sweep: SweepData) -> pd.DataFrame:
    """Responses of the ledgers, one a row, with a list of numbers for each token: columns ``TOKEN_COLUMNS``; influence,
    entropy and logprobs are nats."""
    return _gather(sweep, "tokens.json", TOKEN_COLUMNS)


def load_rollouts(sweep: SweepData) -> pd.DataFrame:
    """All responses of the steps that were kept, one a row: columns ``ROLLOUT_COLUMNS``, of which the last have a list
    of numbers for each token (nats; the advantage in its own unit; influence None where no ledger looked)."""
    store = open_store(sweep.uri)
    frames = []
    for cell in sweep.cells[list(_CELL_COLUMNS)].to_dict("records"):
        run = sweep.runs.get(cell["signature"])
        for path in store.files(run, "rollouts") if run else []:
            frames.append(read_rollouts(path).assign(**{str(key): value for key, value in cell.items()}))
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return frame.reindex(columns=list(ROLLOUT_COLUMNS))


def read_rollouts(path: Path) -> pd.DataFrame:
    """One file of kept responses; ValueError in one sentence where it cannot be read."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


def load_provenance(sweep: SweepData) -> dict[str, str]:
    """Packages, Python and hardware from the ``provenance.json`` of the newest run that has one."""
    store = open_store(sweep.uri)
    for run in sorted(sweep.runs.values(), key=lambda run: run.start_time, reverse=True):
        if text := store.read_text(run, "provenance.json"):
            try:
                document = json.loads(text)
            except ValueError as error:
                raise ValueError(f"artifact provenance.json of run {run.run_id} cannot be read: {error}") from error
            return provenance_facts(document)
    return {}


def provenance_facts(document: Mapping[str, Any]) -> dict[str, str]:
    """A provenance document as names and short texts; of the git diff only whether there was one."""
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


def _gather(sweep: SweepData, path: str, columns: tuple[str, ...]) -> pd.DataFrame:
    store = open_store(sweep.uri)
    rows: list[dict[str, Any]] = []
    for cell in sweep.cells[list(_CELL_COLUMNS)].to_dict("records"):
        run = sweep.runs.get(cell["signature"])
        text = store.read_text(run, path) if run else None
        if text is None or run is None:
            continue
        try:
            records = table_records(json.loads(text))
        except ValueError as error:
            raise ValueError(f"artifact {path} of run {run.run_id} cannot be read: {error}") from error
        cell_values = {str(key): value for key, value in cell.items()}
        rows += [{**record, **cell_values} for record in records]
    return pd.DataFrame(rows).reindex(columns=list(columns))
