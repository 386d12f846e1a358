"""``python -m sweeps gc``: finds and deletes what an output folder holds and no sweep needs.

A run that may be alive is never deleted, and nothing is deleted without ``--yes``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.grid.sweep import load_document, sweep_names
from sweeps.plan import schema
from sweeps.queues.liveness import record_dead_runs
from trainer.contract.liveness import lock
from trainer.contract.status import UNFINISHED, read_status


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A folder that can be deleted."""

    path: Path
    why: str

    @property
    def size(self) -> int:
        """Bytes."""
        files = (Path(folder) / name for folder, _, names in os.walk(self.path) for name in names)
        return sum(file.lstat().st_size for file in files)


def leftovers(output: Path, *, checkpoints: bool, old_schema: bool = False) -> list[Leftover]:
    """Run folders that no sweep lists, Submitit's files of ended jobs and, on request, checkpoints of completed
    runs and runs of another schema."""
    run_dirs = sorted(path for path in (output / "runs").glob("*") if path.is_dir())
    record_dead_runs(run_dirs)
    busy = {path.name for path in run_dirs if (status := read_status(path)) and status.state in UNFINISHED}
    listed = {
        name: {cell["signature"] for cell in load_document(output, name)["cells"]} for name in sweep_names(output)
    }
    old = set(schema.outdated(output)) if old_schema else set[Path]()
    current = [path for path in run_dirs if path not in old]
    return [
        *(Leftover(path=path, why="of another version") for path in sorted(old) if path.name not in busy),
        *_unlisted(current, busy.union(*listed.values())),
        *_jobs(output, listed, busy),
        *(_checkpoints(current) if checkpoints else ()),
    ]


def _unlisted(run_dirs: list[Path], needed: set[str]) -> Iterator[Leftover]:
    for run_dir in run_dirs:
        if run_dir.name not in needed:
            yield Leftover(path=run_dir, why="no sweep lists this run")


def _jobs(output: Path, listed: dict[str, set[str]], busy: set[str]) -> Iterator[Leftover]:
    for name, signatures in listed.items():
        if not signatures & busy:
            for folder in sorted((output / "sweeps" / name / "jobs").glob("*")):
                yield Leftover(path=folder, why="its jobs have ended")


def _checkpoints(run_dirs: list[Path]) -> Iterator[Leftover]:
    for run_dir in run_dirs:
        status = read_status(run_dir)
        if status is not None and status.state == "COMPLETED" and (run_dir / "checkpoints").is_dir():
            yield Leftover(path=run_dir / "checkpoints", why="the run is complete")


def remove(leftover: Leftover) -> bool:
    """Delete a folder; False when another process has locked the run meanwhile."""
    run_dir = leftover.path if (leftover.path / "status.json").exists() else leftover.path.parent
    handle = lock(run_dir, patience_s=0.0) if (run_dir / "status.json").exists() else None
    if handle is None and (run_dir / "status.json").exists():
        return False
    shutil.rmtree(leftover.path)
    if handle is not None:
        handle.close()
    return True


def size_text(size: int) -> str:
    """``3.2 MiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
