"""Runs in this process, from folder to end, and what a kill leaves of one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from runs import write_run

from trainer.engine.base import EnginePool
from trainer.loop import train
from trainer.setup.build import build_run
from trainer.storage.record import RunFolder


def completed(folder: RunFolder, engines: EnginePool) -> RunFolder:
    """The run of this folder, trained to its end."""
    assert train(build_run(folder.config()), folder, engines) == "COMPLETED"
    return folder


def trained(path: Path, engines: EnginePool, changes: dict[str, Any] | None = None) -> RunFolder:
    """A new run at ``path`` with these settings changed, trained to its end."""
    return completed(write_run(path, changes), engines)


def preempted_once(after: int, path: Path, engines: EnginePool, changes: dict[str, Any] | None = None) -> RunFolder:
    """A new run at ``path`` that is preempted at the step boundary after so many others, then trained to its end."""
    folder, boundaries = write_run(path, changes), iter([False] * after + [True])
    run = build_run(folder.config())
    assert train(run, folder, engines, interrupted=lambda: next(boundaries)) == "PREEMPTED"
    assert train(run, folder, engines) == "COMPLETED"
    return folder


def killed_after(step: int, whole: RunFolder, path: Path) -> RunFolder:
    """What a kill after checkpoint ``step`` leaves of a run: curves that go on, neither later checkpoints nor a
    status."""
    folder = RunFolder(shutil.copytree(whole.path, path))
    folder.status_file.unlink()
    for checkpoint in folder.checkpoints.glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    return folder
