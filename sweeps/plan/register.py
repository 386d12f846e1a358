"""Writes the run folders with their resolved configurations before jobs are queued, and checks the disk for space.

A job then needs nothing but its run folders; ``sweep.py`` may end.
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
from sweeps.grid.sweep import Sweep
from sweeps.runs.run_folder import read_run, write_run
from sweeps.tracking import absolute
from trainer.contract.files import OutOfSpace, make_folder
from trainer.contract.identity import SCHEMA, group_signature
from trainer.contract.liveness import lock
from trainer.contract.settings import ConfigError
from trainer.contract.status import read_status, write_status

ROOM_MIB, ROOM_PER_RUN_MIB = 200, 1
"""Free disk space that is required; checkpoints of a large model need far more."""


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
    """Create ``folder`` for this user only, because Submitit unpickles (and so executes) the files in it."""
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _nearest(output: Path) -> Path:
    return next(path for path in [output, *output.parents] if path.exists())


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRef:
    """The sweep that a run belongs to, as its ``run.yaml`` records it."""

    sweep: Sweep
    uri: str | None
    """MLflow tracking URI."""
    parent_run_id: str | None
    """MLflow run of the sweep."""
    facts: Mapping[str, str]
    """Provenance; see :mod:`sweeps.plan.origin`."""


def register(sweep_ref: SweepRef, cells: Iterable[Cell]) -> list[Path]:
    """Write each cell's ``run.yaml`` and mark it QUEUED. Raises :class:`ConfigError` if it cannot be written.

    A run that another process has locked meanwhile is left as it is; the job will skip it.
    """
    run_dirs = []
    for cell in cells:
        run_dir = sweep_ref.sweep.run_dir(cell)
        try:
            make_folder(run_dir)
            _register(run_dir, cell, run_document(sweep_ref, cell))
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
    handle = lock(run_dir, patience_s=0.2)
    if handle is None:
        return
    with handle:
        status = read_status(run_dir)
        if status is not None and status.state == "COMPLETED":
            return
        write_run(run_dir, document)
        (run_dir / "STOP").unlink(missing_ok=True)
        waiting = {"message": None, "pid": os.getpid(), "host": socket.gethostname(), "job": None}
        write_status(run_dir, "QUEUED", steps=int(cell.config["steps"]), **waiting)


def adopt(sweep_ref: SweepRef, cells: Iterable[Cell]) -> list[Path]:
    """Point finished runs of earlier sweeps to this sweep's MLflow store; returns those that it does not hold yet.

    A sweep that reuses runs then shows all of its cells in MLflow.
    """
    if sweep_ref.uri is None:
        return []
    adopted = []
    for cell in cells:
        run_dir = sweep_ref.sweep.run_dir(cell)
        if absolute((read_run(run_dir).get("tracking") or {}).get("uri")) != sweep_ref.uri:
            write_run(run_dir, run_document(sweep_ref, cell))
            adopted.append(run_dir)
    return adopted


def run_document(sweep_ref: SweepRef, cell: Cell) -> dict[str, Any]:
    """The content of ``run.yaml``: configuration, level within the sweep, MLflow settings, provenance."""
    name, level = sweep_ref.sweep.name, cell.level
    document: dict[str, Any] = {"schema": SCHEMA} | copy.deepcopy(dict(cell.config))
    tracking = document["tracking"]
    document["study"] = {"name": name, "level": level.name, "level_index": level.index, "label": level.label}
    document["tracking"] = tracking | {
        "uri": sweep_ref.uri,
        "parent_run_id": sweep_ref.parent_run_id,
        "run_name": tracking.get("run_name") or f"{name} {level.label} seed {cell.seed}",
        "tags": _tags(sweep_ref, cell) | (tracking.get("tags") or {}),
    }
    revision, changes = sweep_ref.facts.get("git revision"), sweep_ref.facts.get("uncommitted changes")
    provenance = {**sweep_ref.facts, "git": {"revision": revision, "dirty": changes == "yes"}}
    return document | {"signature": cell.signature, "provenance": provenance}


def _tags(sweep_ref: SweepRef, cell: Cell) -> dict[str, str]:
    factor = cell.config.get("factor")
    return {
        "kind": "cell",
        "study": sweep_ref.sweep.name,
        "level": cell.level.name,
        "level_index": str(cell.level.index),
        "seed": str(cell.seed),
        "signature": cell.signature,
        "group": group_signature(cell.config),
    } | ({"factor": str(factor["name"])} if factor else {})
