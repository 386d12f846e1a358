"""Writes down what is going to run, before it runs: run folders with frozen configurations, and room for them.

Called by :mod:`sweeps.launch` once everything has been checked; after it, jobs need nothing from the launcher.
"""

from __future__ import annotations

import copy
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeps.cells import Cell
from sweeps.runs import write_run, write_status
from sweeps.study import Study
from trainer.config import ConfigError, group_signature

ROOM_MIB, ROOM_PER_RUN_MIB = 100, 20
"""Free space that even the shipped tiny model needs."""


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


def _nearest(output: Path) -> Path:
    return next(path for path in [output, *output.parents] if path.exists())


def register(
    study: Study, cells: Iterable[Cell], *, uri: str | None, parent_run_id: str | None, facts: Mapping[str, str]
) -> list[Path]:
    """Freeze each cell into its run folder and mark it QUEUED; :class:`ConfigError` where that cannot be written."""
    run_dirs = []
    for cell in cells:
        run_dir = study.run_dir(cell)
        try:
            write_run(run_dir, run_document(study, cell, uri=uri, parent_run_id=parent_run_id, facts=facts))
            (run_dir / "STOP").unlink(missing_ok=True)
            steps = int(cell.config["steps"])
            write_status(
                run_dir, "QUEUED", steps=steps, message=None, pid=os.getpid(), host=socket.gethostname(), job=None
            )
        except OSError as error:
            raise ConfigError(
                f"{run_dir} cannot be written ({error.strerror}): nothing was queued; "
                "free space or choose another output"
            ) from error
        run_dirs.append(run_dir)
    return run_dirs


def run_document(
    study: Study, cell: Cell, *, uri: str | None, parent_run_id: str | None, facts: Mapping[str, str]
) -> dict[str, Any]:
    """The content of ``run.yaml``: configuration, place in the study, MLflow address, origin."""
    document: dict[str, Any] = copy.deepcopy(dict(cell.config))
    place = {"name": study.name, "level": cell.level.name, "level_index": cell.level.index, "label": cell.level.label}
    tags = {
        "kind": "cell",
        "study": study.name,
        "level": cell.level.name,
        "level_index": str(cell.level.index),
        "seed": str(cell.seed),
        "signature": cell.signature,
        "group": group_signature(cell.config),
    }
    if cell.config.get("factor"):
        tags["factor"] = str(cell.config["factor"]["name"])
    document["study"] = place
    document["tracking"] |= {
        "uri": uri,
        "parent_run_id": parent_run_id,
        "run_name": document["tracking"].get("run_name") or f"{study.name} {cell.level.label} seed {cell.seed}",
        "tags": tags | (document["tracking"].get("tags") or {}),
    }
    git = {"revision": facts.get("git revision"), "dirty": facts.get("uncommitted changes") == "yes"}
    return document | {"signature": cell.signature, "provenance": {**facts, "git": git}}
