"""The small files of a run folder that trainer and ``sweeps`` both use: attempts, and ``STOP``, which ends a run.

It must not interpret what a run computes.
"""

from __future__ import annotations

from pathlib import Path

from trainer.contract.files import make_folder, write_atomic

CANCEL = "cancel"
"""First word of a ``STOP`` file that a person asked for; one of a search says ``prune NAME`` and, below, why."""


def last_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint that was written whole; whether its bytes are as they were, its readers check."""
    saved = (path.parent for path in (run_dir / "checkpoints").glob("step-*/manifest.json"))
    return max(saved, key=lambda path: path.name, default=None)


def next_attempt(run_dir: Path) -> Path:
    """A new folder ``attempts/<n>``, n counting from 1."""
    return make_folder(run_dir / "attempts" / str(last_number(run_dir) + 1))


def last_attempt(run_dir: Path) -> Path | None:
    """The newest attempt's folder."""
    number = last_number(run_dir)
    return run_dir / "attempts" / str(number) if number else None


def last_number(run_dir: Path) -> int:
    """Number of the newest attempt, 0 before the first."""
    try:
        return max((int(path.name) for path in (run_dir / "attempts").iterdir() if path.name.isdigit()), default=0)
    except FileNotFoundError:
        return 0


def last_job(run_dir: Path) -> str | None:
    """The queue's name for the job of the newest attempt, ``slurm:17_3@cluster`` or ``local:...``."""
    attempt = last_attempt(run_dir)
    path = attempt / "job" if attempt else None
    return path.read_text().strip() if path is not None and path.exists() else None


def ask_to_stop(run_dir: Path, why: str = CANCEL) -> None:
    """Let the run finish its step, save and leave, however often it is started, until the file is removed."""
    write_atomic(run_dir / "STOP", f"{why}\n")


def stop_request(run_dir: Path) -> str | None:
    """What the ``STOP`` file says; None without one."""
    try:
        return (run_dir / "STOP").read_text()
    except FileNotFoundError:
        return None


def is_cancelled(run_dir: Path) -> bool:
    """Whether a person asked the run to end."""
    return (stop_request(run_dir) or "").startswith(CANCEL)
