"""One run as a sweep of one cell, so that its report and its frames are those of a sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dashboards.store.folder import is_run_folder
from dashboards.store.open import open_store
from dashboards.store.store import RunRecord, Store
from dashboards.sweep.factor import Factor
from dashboards.sweep.load import SweepData, build_sweep, find_parent, list_sweeps, search_folder, sweep_of

_SHORTEST_PREFIX = 4


def load(uri: str, name: str) -> SweepData:
    """The sweep or the run that ``name`` means: the folder of a run, a study, a sweep's run id or run name, a run's
    signature (or the beginning of it), MLflow run id or run name. ValueError where there is none."""
    if is_run_folder(name):
        folder = str(Path(name).resolve())
        store = open_store(folder)
        return run_as_sweep(store, folder, store.runs_with_tag("kind", ["cell"])[0])
    store = open_store(uri)
    parents = list_sweeps(store)
    known = {text for parent in parents for text in (parent.tags.get("study"), parent.run_id, parent.name)}
    if name not in known and (run := find_run(store, name)):
        return run_as_sweep(store, uri, run)
    return build_sweep(store, uri, find_parent(parents, name, uri))


def named_search(uri: str, name: str) -> Path | None:
    """The folder of the search that ``name`` means; None where it means something else."""
    if is_run_folder(name):
        return None
    store = open_store(uri)
    matching = [run for run in list_sweeps(store) if name in (run.tags.get("study"), run.run_id, run.name)]
    return search_folder(store, matching[0]) if matching else None


def find_run(store: Store, name: str) -> RunRecord | None:
    """The newest run of that signature, run id or run name, or the only one whose signature begins so."""
    if matching := store.runs_with_tag("signature", [name]):
        return matching[0]
    runs = store.runs_with_tag("kind", ["cell"])
    if matching := [run for run in runs if name in (run.run_id, run.name)]:
        return matching[0]
    begun = [run for run in runs if len(name) >= _SHORTEST_PREFIX and run.tags.get("signature", "").startswith(name)]
    return begun[0] if len({run.tags["signature"] for run in begun}) == 1 else None


def run_as_sweep(store: Store, uri: str, run: RunRecord) -> SweepData:
    """The run as the only cell of a sweep without a factor."""
    signature = run.tags.get("signature") or run.run_id
    cell = {"signature": signature, "level": signature, "label": signature, "seed": run.tags.get("seed") or 0}
    sweep = sweep_of(store, uri, run, {"study": signature, "cells": [cell]})
    return replace(sweep, factor=Factor(name=signature, key="", label="Run"))
