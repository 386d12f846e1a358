"""``status.json``: how far a run is, who is at work on it, how it ended; and the exit codes of the trainer.

Written by the trainer while it trains and by ``sweeps`` before and after, always through :func:`write_status`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

from trainer.contract.files import write_atomic
from trainer.contract.settings import ConfigError

STATES = ("PLANNED", "QUEUED", "RUNNING", "PREEMPTED", "COMPLETED", "FAILED", "CANCELLED", "PRUNED", "LOST")
"""What ``status.json`` can say of a run."""

FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "PRUNED"})
"""States that only a person's wish (``retry``) or a new request ends; COMPLETED is final."""

UNFINISHED = frozenset({"QUEUED", "RUNNING", "PREEMPTED"})
"""States of a run that somebody may be at work on."""


class ExitCode(IntEnum):
    """What ``python -m trainer`` leaves with; of several runs the worst."""

    DONE = 0
    CRASHED = 1
    BAD_CONFIGURATION = 2
    STOPPED = 10
    """On request: cancelled or pruned."""
    PREEMPTED = 20
    """Saved after a signal; to be started again."""
    TAKEN = 30
    """Another process has the run."""
    INTERRUPTED = 130
    """Ctrl-C."""


EXIT_CODES = {
    "COMPLETED": ExitCode.DONE,
    "PRUNED": ExitCode.STOPPED,
    "CANCELLED": ExitCode.STOPPED,
    "PREEMPTED": ExitCode.PREEMPTED,
    "FAILED": ExitCode.CRASHED,
}
"""Exit code for the state in which a training ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The content of ``status.json``."""

    state: str
    """One of :data:`STATES`."""
    step: int = 0
    """Training steps done."""
    steps: int = 0
    """Training steps of the whole run."""
    time: float = 0.0
    """Unix seconds of the last change."""
    pid: int | None = None
    """Process that is in charge: the launcher while QUEUED, the trainer while RUNNING."""
    host: str | None = None
    attempt: int = 0
    message: str | None = None
    """Why it is in this state, one sentence."""
    mlflow_run_id: str | None = None
    job: str | None = None
    """The queue's name for the job, e.g. ``slurm:17_3@cluster``."""
    startup: tuple[tuple[str, float], ...] = ()
    """What the newest attempt did before its first step: each phase, and the Unix seconds at which it began."""


def read_status(run_dir: Path) -> Status | None:
    """The status, None where there is none. Raises :class:`ConfigError` for a file that is none."""
    path = run_dir / "status.json"
    record = read_object(path, "the run goes on from its last checkpoint")
    if record is None:
        return None
    known = {field.name for field in fields(Status)}
    valid = record.get("state") in STATES and all(isinstance(record.get(key, 0), int) for key in ("step", "steps"))
    if not valid:
        raise ConfigError(f"{path} names no state of a run: remove it, and the run goes on from its last checkpoint")
    startup = tuple((str(phase), float(begun)) for phase, begun in record.get("startup") or ())
    return Status(**{key: value for key, value in record.items() if key in known} | {"startup": startup})


def read_object(path: Path, consequence: str) -> dict[str, Any] | None:
    """The JSON object in a file, None where there is no file.

    Raises :class:`ConfigError` for a damaged one, with the ``consequence`` of removing it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        problem = "is empty" if path.stat().st_size == 0 else f"is not JSON ({error})"
        raise ConfigError(
            f"{path} {problem}, though nothing here writes half a file: remove it, and {consequence}"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a JSON object: remove it, and {consequence}")
    return content


def write_status(run_dir: Path, state: str, **changes: Any) -> Status:
    """Replace the status; what ``changes`` does not name stays. Raises ValueError for a word that is no state."""
    if state not in STATES:
        raise ValueError(f"state {state!r} is not one of {', '.join(STATES)}")
    old = read_status(run_dir)
    kept = asdict(old) if old else {}
    status = Status(**(kept | {"state": state, "time": time.time()} | changes))
    write_atomic(run_dir / "status.json", json.dumps(asdict(status), indent=1) + "\n")
    return status
