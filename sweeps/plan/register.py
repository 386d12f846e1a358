"""Writes the run folders with their frozen configurations before anything is queued, and checks that the disk has
room for them.

From then on a job needs nothing from the launcher.
"""

from __future__ import annotations

import copy
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.grid.cells import Cell
from sweeps.grid.sweep import Study
from sweeps.runs.run_folder import read_run, write_run
from sweeps.tracking import absolute
from trainer.contract.config import ConfigError
from trainer.contract.files import OutOfSpace, make_folder
from trainer.contract.identity import SCHEMA, group_signature
from trainer.contract.liveness import lock
from trainer.contract.status import read_status, write_status

ROOM_MIB, ROOM_PER_RUN_MIB = 200, 1
"""Free space below which a sweep would soon stop; checkpoints of a large model need far more."""


def require_folder(output: Path) -> None:
    """Raise :class:`ConfigError` unless ``output`` is, or can become, a folder that may be written; writes nothing."""
    existing = _nearest(output)
    if not existing.is_dir():
        raise ConfigError(f"output={str(output)!r} cannot be used: {existing} is a file; choose a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"output={str(output)!r} cannot be written: {existing} does not allow it; choose another folder"
        )


def require_room(output: Path, num_runs: int) -> None:
    """Raise :class:`ConfigError` unless the disk has room for ``num_runs`` more runs; writes nothing."""
    free_mib = shutil.disk_usage(_nearest(output)).free / 2**20
    needed_mib = ROOM_MIB + ROOM_PER_RUN_MIB * num_runs
    if num_runs and free_mib < needed_mib:
        raise ConfigError(
            f"output={str(output)!r} is on a disk with {free_mib:.0f} MiB left, "
            f"but {num_runs} runs need at least {needed_mib}: free some, or choose another folder"
        )


def private_folder(folder: Path) -> Path:
    """Make ``folder`` for this user alone, and return it: Submitit unpickles what lies there, and so would run it."""
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _nearest(output: Path) -> Path:
    return next(path for path in [output, *output.parents] if path.exists())


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRef:
    """What a run is told about the sweep it belongs to."""

    study: Study
    uri: str | None
    """MLflow tracking URI."""
    parent_run_id: str | None
    """MLflow run of the sweep."""
    facts: Mapping[str, str]
    """Where the sweep came from."""


def register(place: SweepRef, cells: Iterable[Cell]) -> list[Path]:
    """Freeze each cell into its run folder and mark it QUEUED; :class:`ConfigError` where that cannot be written.

    A run that another launcher got hold of meanwhile is left as it is: the worker will find it taken, or completed.
    """
    run_dirs = []
    for cell in cells:
        run_dir = place.study.run_dir(cell)
        try:
            make_folder(run_dir)
            _register(run_dir, cell, run_document(place, cell))
        except OutOfSpace:
            raise
        except OSError as error:
            raise ConfigError(
                f"{error.filename or run_dir} cannot be written ({error.strerror}): nothing was queued; "
                "free space or choose another output"
            ) from error
        run_dirs.append(run_dir)
    return run_dirs


def _register(run_dir: Path, cell: Cell, document: Mapping[str, Any]) -> None:
    held = lock(run_dir, patience_s=0.2)
    if held is None:
        return
    with held:
        status = read_status(run_dir)
        if status is not None and status.state == "COMPLETED":
            return
        write_run(run_dir, document)
        (run_dir / "STOP").unlink(missing_ok=True)
        waiting = {"message": None, "pid": os.getpid(), "host": socket.gethostname(), "job": None}
        write_status(run_dir, "QUEUED", steps=int(cell.config["steps"]), **waiting)


def adopt(place: SweepRef, cells: Iterable[Cell]) -> list[Path]:
    """Give finished runs that were mirrored elsewhere, or nowhere, this sweep's MLflow store; returns those.

    So a sweep that reuses runs of an earlier one shows all of them.
    """
    if place.uri is None:
        return []
    late = []
    for cell in cells:
        run_dir = place.study.run_dir(cell)
        if absolute((read_run(run_dir).get("tracking") or {}).get("uri")) != place.uri:
            write_run(run_dir, run_document(place, cell))
            late.append(run_dir)
    return late


def run_document(place: SweepRef, cell: Cell) -> dict[str, Any]:
    """The content of ``run.yaml``: configuration, place in the study, MLflow address, origin."""
    name, level = place.study.name, cell.level
    document: dict[str, Any] = {"schema": SCHEMA} | copy.deepcopy(dict(cell.config))
    tracking = document["tracking"]
    document["study"] = {"name": name, "level": level.name, "level_index": level.index, "label": level.label}
    document["tracking"] = tracking | {
        "uri": place.uri,
        "parent_run_id": place.parent_run_id,
        "run_name": tracking.get("run_name") or f"{name} {level.label} seed {cell.seed}",
        "tags": _tags(place, cell) | (tracking.get("tags") or {}),
    }
    revision, changes = place.facts.get("git revision"), place.facts.get("uncommitted changes")
    provenance = {**place.facts, "git": {"revision": revision, "dirty": changes == "yes"}}
    return document | {"signature": cell.signature, "provenance": provenance}


def _tags(place: SweepRef, cell: Cell) -> dict[str, str]:
    factor = cell.config.get("factor")
    return {
        "kind": "cell",
        "study": place.study.name,
        "level": cell.level.name,
        "level_index": str(cell.level.index),
        "seed": str(cell.seed),
        "signature": cell.signature,
        "group": group_signature(cell.config),
    } | ({"factor": str(factor["name"])} if factor else {})
