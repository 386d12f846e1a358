"""One run folder as ``sweeps`` sees it: what was asked (run.yaml), how far it is (status.json), who has it (the lock).

Called by everything that plans, starts or looks after runs. It must not interpret metrics.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import yaml

from trainer import run_yaml
from trainer.config import ConfigError
from trainer.identity import identity, signature

FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "PRUNED"})
"""States that only a person's wish (``retry``) or a new request ends; COMPLETED is final."""

UNFINISHED = frozenset({"QUEUED", "RUNNING", "PREEMPTED"})
"""States of a run that somebody may be at work on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The content of ``status.json``."""

    state: str
    """PLANNED, QUEUED, RUNNING, PREEMPTED, COMPLETED, FAILED, CANCELLED, PRUNED or LOST."""
    step: int = 0
    steps: int = 0
    time: float = 0.0
    """Unix seconds of the last change."""
    pid: int | None = None
    """Process that is in charge: the launcher while QUEUED, the trainer while RUNNING."""
    host: str | None = None
    attempt: int = 0
    message: str | None = None
    mlflow_run_id: str | None = None
    job: str | None = None
    """The queue's name for the job, e.g. ``slurm:17_3@cluster``."""


def read_status(run_dir: Path) -> Status | None:
    """The status, or None for a folder whose run has never been queued."""
    try:
        record = json.loads((run_dir / "status.json").read_text())
    except FileNotFoundError:
        return None
    known = {field.name for field in fields(Status)}
    return Status(**{key: value for key, value in record.items() if key in known})


def write_status(run_dir: Path, state: str, **changes: Any) -> Status:
    """Replace the status atomically; what ``changes`` does not name stays."""
    old = read_status(run_dir)
    kept = asdict(old) if old else {}
    status = Status(**(kept | {"state": state, "time": time.time()} | changes))
    write_atomically(run_dir / "status.json", json.dumps(asdict(status)))
    return status


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old content or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_run(run_dir: Path) -> dict[str, Any]:
    """The frozen configuration. Raises :class:`ConfigError` when it is missing or torn."""
    try:
        document = run_yaml.loads((run_dir / "run.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{run_dir} holds no run.yaml: it is not a run folder") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{run_dir}/run.yaml cannot be read: move the folder away and start the sweep again"
        ) from error
    if not isinstance(document, dict):
        raise ConfigError(f"{run_dir}/run.yaml holds no configuration: move the folder away and start the sweep again")
    return document


def write_run(run_dir: Path, document: Mapping[str, Any]) -> None:
    """Freeze a configuration; settings outside the identity may change between attempts, the experiment may not."""
    path = run_dir / "run.yaml"
    if path.exists():
        old = read_run(run_dir)
        if signature(old) != signature(document) or identity(old) != identity(document):
            raise ConfigError(
                f"{path} belongs to another configuration: it is left alone; move the folder away to run this one"
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(path, run_yaml.dumps(document))


def lock(run_dir: Path, patience_s: float = 1.0) -> IO[str] | None:
    """Take the run for this process; None when somebody has it. The kernel lets go when the last holder ends.

    A trainer started with this descriptor keeps the run taken even if the holder is killed. ``patience_s`` outlasts
    :func:`is_locked`, which holds the lock for a moment.
    """
    handle = (run_dir / ".lock").open("a")
    end = time.monotonic() + patience_s
    while not _flock(handle, fcntl.LOCK_EX):
        if time.monotonic() > end:
            handle.close()
            return None
        time.sleep(0.05)
    return handle


def is_locked(run_dir: Path) -> bool:
    """Whether a worker or trainer has the run at this moment."""
    if not (run_dir / ".lock").exists():
        return False
    with (run_dir / ".lock").open("a") as handle:
        return not _flock(handle, fcntl.LOCK_SH)


def _flock(handle: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def last_job(run_dir: Path) -> str | None:
    """The queue's name for the job of the newest attempt, ``slurm:17_3@cluster`` or ``local:...``."""
    attempt = last_attempt(run_dir)
    path = attempt / "job" if attempt else None
    return path.read_text().strip() if path is not None and path.exists() else None


def next_attempt(run_dir: Path) -> Path:
    """A new folder ``attempts/<n>``, n counting from 1."""
    attempts = run_dir / "attempts"
    attempts.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name) for path in attempts.iterdir() if path.name.isdigit()), default=0)
    folder = attempts / str(number)
    folder.mkdir()
    return folder


def last_attempt(run_dir: Path) -> Path | None:
    """The newest attempt's folder."""
    attempts = run_dir / "attempts"
    numbers = [int(path.name) for path in attempts.iterdir() if path.name.isdigit()] if attempts.is_dir() else []
    return attempts / str(max(numbers)) if numbers else None
