"""What each cell of a sweep needs, given what its run folder already holds.

Called by :mod:`sweeps.launch` before anything is queued and by ``python -m sweeps``. It reads and decides; it changes
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sweeps.queues.slurm import living_jobs
from sweeps.runs import UNFINISHED, Status, is_alive, read_status
from trainer.config import require

RETRIES = (None, "failed", "lost", "all")


class Action(StrEnum):
    """What to do with a cell; the value is how the plan calls it."""

    START = "new"
    RESUME = "resume"
    KEEP = "done"
    JOIN = "running"
    LEAVE = "left alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One run folder and what is to be done with it."""

    run_dir: Path
    action: Action
    status: Status | None

    @property
    def to_queue(self) -> bool:
        """Whether this sweep has to run it."""
        return self.action in (Action.START, Action.RESUME)


def reconcile(run_dirs: Sequence[Path], retry: str | None = None) -> list[Decision]:
    """A decision per run folder: the complete are kept, the living joined, the interrupted and cancelled go on.

    FAILED is left alone unless ``retry`` is ``failed`` or ``all``, PRUNED unless it is ``all``. ``lost`` and ``all``
    also take over runs of which nobody here can tell whether they live (the lock still keeps two from working on one).
    """
    require(retry in RETRIES, "retry", retry, "choose failed, lost, all or null")
    statuses = [read_status(run_dir) for run_dir in run_dirs]
    asked = any(status is not None and status.state in UNFINISHED for status in statuses)
    jobs = living_jobs() if asked else set()
    return [
        Decision(run_dir=run_dir, action=_action(run_dir, status, retry, jobs), status=status)
        for run_dir, status in zip(run_dirs, statuses, strict=True)
    ]


def _action(run_dir: Path, status: Status | None, retry: str | None, jobs: Collection[str] | None) -> Action:
    if status is None or status.state == "PLANNED":
        return Action.START
    if status.state == "COMPLETED":
        return Action.KEEP
    if status.state == "FAILED":
        return Action.RESUME if retry in ("failed", "all") else Action.LEAVE
    if status.state == "PRUNED":
        return Action.RESUME if retry == "all" else Action.LEAVE
    if is_alive(run_dir, status, jobs) and retry not in ("lost", "all"):
        return Action.JOIN
    return Action.RESUME
