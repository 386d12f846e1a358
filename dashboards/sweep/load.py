"""Loads a sweep from MLflow: its cells with their states, and all metrics that they logged, as data frames.

Every cell is a row of ``cells``, also one that is missing, unfinished or failed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dashboards.store.open import open_store
from dashboards.store.store import RunRecord, Store
from dashboards.sweep.factor import Factor, parse_factor
from dashboards.sweep.glossary import GLOSSARY_FILE, Glossary, Metric, parse_glossary

CELL_COLUMNS = ("signature", "level", "label", "level_index", "seed", "state", "run_id", "last_step", "message")
METRIC_COLUMNS = ("signature", "level", "label", "level_index", "seed", "step", "metric", "value")
_STATE_OF_STATUS = {
    "RUNNING": "RUNNING",
    "SCHEDULED": "QUEUED",
    "FINISHED": "COMPLETED",
    "FAILED": "FAILED",
    "KILLED": "CANCELLED",
}
_UNFINISHED = {"", "PLANNED", "QUEUED", "RUNNING"}
_OUTSIDE = ("provenance.", "tracking.", "launcher.", "factor.", "study.", "checkpoint.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepData:
    """A sweep with its cells and metrics."""

    name: str
    uri: str
    parent: RunRecord
    factor: Factor
    command: str
    cells: pd.DataFrame
    """One row a cell of the sweep, by level and seed; columns ``CELL_COLUMNS``. ``state`` is MISSING without a run."""
    metrics: pd.DataFrame
    """One row a logged point, one point a (cell, metric, step); columns ``METRIC_COLUMNS``; NaN where not finite."""
    settings: Mapping[str, str]
    """Parameters that every cell shares."""
    provenance: Mapping[str, str]
    """Git revision, versions and the like, as far as they were logged."""
    runs: Mapping[str, RunRecord]
    """The MLflow run of each signature that has one."""
    glossary: Glossary
    """Definitions of the metrics, from the newest run."""

    def describe(self, key: str) -> Metric:
        """Label, unit, definition and range of a metric."""
        return self.glossary.describe(key)

    @property
    def completed(self) -> pd.DataFrame:
        """The completed cells; final values are taken from these only."""
        return self.cells[self.cells["state"] == "COMPLETED"]

    @property
    def levels(self) -> pd.DataFrame:
        """One row a level in order: level, label, level_index."""
        columns = ["level", "label", "level_index"]
        return self.cells[columns].drop_duplicates("level").sort_values("level_index").reset_index(drop=True)

    @property
    def reference(self) -> str:
        """The level that others are compared with: the first one."""
        return str(self.levels["level"].iloc[0])


def list_sweeps(store: Store) -> list[RunRecord]:
    """The parent run of every sweep in the store, newest first."""
    return store.runs_with_tag("kind", ["sweep"])


def load_sweep(uri: str, name: str, metrics: Sequence[str] | None = None) -> SweepData:
    """The newest sweep whose study, run id or run name is ``name``; ``metrics`` limits what is read.

    Raises ValueError when the store or the study does not exist or its ``sweep.json`` is absent or unreadable.
    """
    store = open_store(uri)
    parent = find_parent(list_sweeps(store), name, uri)
    return build_sweep(store, uri, parent, metrics)


def build_sweep(store: Store, uri: str, parent: RunRecord, metrics: Sequence[str] | None = None) -> SweepData:
    """The sweep of a parent run."""
    return sweep_of(store, uri, parent, read_sweep(store, parent), metrics)


def sweep_of(
    store: Store, uri: str, parent: RunRecord, document: Mapping[str, Any], metrics: Sequence[str] | None = None
) -> SweepData:
    """The cells that ``document`` (as in ``sweep.json``) names, with their runs in the store."""
    planned = _planned_cells(document, parent)
    runs = _newest_runs(store, parent, [str(cell["signature"]) for cell in document["cells"]])
    points = store.metrics([run.run_id for run in runs.values()], metrics)
    cells = _cells(planned, runs, points)
    name = str(document.get("study") or parent.tags.get("study") or parent.name)
    return SweepData(
        name=name,
        uri=uri,
        parent=parent,
        factor=parse_factor(document.get("factor"), name, document["cells"]),
        command=str(document.get("command") or parent.tags.get("command") or ""),
        cells=cells,
        metrics=_tidy(points, cells),
        settings=_settings(runs),
        runs=runs,
        provenance=_provenance(document, parent, runs),
        glossary=_glossary(store, runs),
    )


def search_folder(store: Store, parent: RunRecord) -> Path | None:
    """The folder of a sweep that is a search (its report is another one); None for any other sweep."""
    text = store.read_text(parent, "sweep.json")
    try:
        document = json.loads(text or "{}")
    except json.JSONDecodeError:
        return None  # the caller that needs the document reports the error
    if not isinstance(document, dict) or not document.get("search"):
        return None
    return Path(str(document.get("output") or "outputs")) / "sweeps" / str(document.get("study") or parent.name)


def find_parent(parents: Sequence[RunRecord], study: str, uri: str) -> RunRecord:
    """The newest of ``parents`` that ``study`` names, or that alone begins so; ValueError naming the nearest and all
    others."""
    for parent in parents:
        if study in (parent.tags.get("study"), parent.run_id, parent.name):
            return parent
    names = sorted({parent.tags.get("study") or parent.name for parent in parents})
    if not names:
        raise ValueError(f"no study named {study!r}: the MLflow store {uri} holds no sweep yet")
    begun = [name for name in names if name.startswith(study)]
    if len(begun) == 1:
        return next(parent for parent in parents if begun[0] in (parent.tags.get("study"), parent.name))
    near = difflib.get_close_matches(study, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"no study named {study!r} in {uri}: {hint}Available: {', '.join(names)}")


def read_sweep(store: Store, parent: RunRecord) -> dict[str, Any]:
    text = store.read_text(parent, "sweep.json")
    if text is None:
        raise ValueError(
            f"the sweep {parent.name or parent.run_id} has no artifact sweep.json at {parent.artifact_uri}: "
            "the folder was moved, or the sweep stopped before anything was queued"
        )
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"sweep.json of run {parent.run_id} is not valid JSON: {error}") from error
    if not isinstance(document, dict) or not document.get("cells"):
        raise ValueError(f"sweep.json of run {parent.run_id} names no cells: there is nothing to show")
    return document


def _planned_cells(document: Mapping[str, Any], parent: RunRecord) -> pd.DataFrame:
    rows = []
    for position, cell in enumerate(document["cells"]):
        level = str(cell.get("level") if cell.get("level") is not None else " ".join(cell.get("overrides") or ()))
        index = cell.get("level_index")
        rows.append(
            {
                "signature": str(cell["signature"]),
                "level": level,
                "label": str(cell.get("label") or level),
                "level_index": int(index) if index is not None else position,
                "seed": int(cell.get("seed") or 0),
            }
        )
    frame = pd.DataFrame(rows).drop_duplicates("signature")
    return frame.sort_values(["level_index", "seed"]).reset_index(drop=True)


def _newest_runs(store: Store, parent: RunRecord, signatures: Sequence[str]) -> dict[str, RunRecord]:
    """The newest run of each signature; a cell reused from an earlier sweep is a child of another parent run."""
    newest: dict[str, RunRecord] = {}
    for run in store.runs_with_tag("signature", signatures, parent.experiment_id, params=True):
        newest.setdefault(run.tags["signature"], run)
    return newest


def _glossary(store: Store, runs: Mapping[str, RunRecord]) -> Glossary:
    """That of the newest run that logged one; empty where none did."""
    for run in sorted(runs.values(), key=lambda run: run.start_time, reverse=True):
        if text := store.read_text(run, GLOSSARY_FILE):
            return parse_glossary(text, f"run {run.run_id}")
    return Glossary()


def _state(run: RunRecord | None) -> str:
    """The state that the run logged, or MLflow's status if the run has ended without logging one."""
    if run is None:
        return "MISSING"
    state, status = run.tags.get("state", ""), _STATE_OF_STATUS.get(run.status, run.status)
    return status if state in _UNFINISHED and status != "QUEUED" else state or status


def _cells(planned: pd.DataFrame, runs: Mapping[str, RunRecord], points: pd.DataFrame) -> pd.DataFrame:
    records = [runs.get(signature) for signature in planned["signature"]]
    last_step = points.groupby("run_id")["step"].max()
    run_ids = [run.run_id if run else "" for run in records]
    return planned.assign(
        state=[_state(run) for run in records],
        run_id=run_ids,
        last_step=[float(last_step.get(run_id, float("nan"))) for run_id in run_ids],
        message=[run.tags.get("message", "") if run else "" for run in records],
    )[list(CELL_COLUMNS)]


def _tidy(points: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Metrics of all cells; of a step that was logged twice (resumed run), the point written last."""
    latest = points.sort_values("time").drop_duplicates(["run_id", "metric", "step"], keep="last")
    columns = ["run_id", "signature", "level", "label", "level_index", "seed"]
    frame = latest.merge(cells[columns], on="run_id")
    frame = frame.astype({"step": "int64", "value": "float64"})
    return frame.sort_values(["metric", "level_index", "seed", "step"])[list(METRIC_COLUMNS)].reset_index(drop=True)


def _settings(runs: Mapping[str, RunRecord]) -> dict[str, str]:
    settings = [set(run.params.items()) for run in runs.values()]
    common = set.intersection(*settings) if settings else set()
    return {key: value for key, value in sorted(common) if not key.startswith(_OUTSIDE)}


def _provenance(document: Mapping[str, Any], parent: RunRecord, runs: Mapping[str, RunRecord]) -> dict[str, str]:
    """Provenance of sweep and runs; where they differ, for example in git revision, all values are listed."""
    facts: dict[str, list[str]] = {}
    stated = [("git revision", parent.tags.get("git_revision", ""))]
    stated += [("git revision", run.tags.get("mlflow.source.git.commit", "")) for run in runs.values()]
    stated += [(str(key), str(value)) for key, value in (document.get("provenance") or {}).items()]
    for key, value in stated:
        if value and value not in facts.setdefault(key, []):
            facts[key].append(value)
    return {key: "; ".join(values) for key, values in facts.items() if values}
