"""Decides for each cell, from its run folder, whether to start, resume, keep, join or leave it. Changes nothing.

To join a run is to follow it while a job of another process trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sweeps.queues.liveness import alive_or_unknown
from sweeps.queues.scheduler import Scheduler, ask
from trainer.contract.settings import require
from trainer.contract.status import UNFINISHED, Status, read_status

RETRIES = (None, "failed", "lost", "all")


ENDED = frozenset({"FAILED", "LOST", "CANCELLED", "PRUNED"})
"""States of runs that ``attach`` does not start again."""


class Action(StrEnum):
    """What to do with a cell; the value is its name in the plan."""

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
    unknown_liveness: bool = False
    """Whether a run is joined although it cannot be determined from this machine if it is alive."""

    @property
    def to_queue(self) -> bool:
        """Whether this sweep has to run it."""
        return self.action in (Action.START, Action.RESUME)


def reconcile(run_dirs: Sequence[Path], retry: str | None = None, only_waiting: bool = False) -> list[Decision]:
    """A decision per run folder: completed runs are kept, live ones joined, interrupted and cancelled ones resumed.

    FAILED is left alone unless ``retry`` is ``failed`` or ``all``, PRUNED unless it is ``all``. ``lost`` and ``all``
    also resume runs whose liveness cannot be determined from here; their lock still excludes a second trainer.
    ``only_waiting`` leaves alone every run that has ended in any way, and starts those that were only queued.
    """
    require(retry in RETRIES, "retry", retry, "choose failed, lost, all or null")
    statuses = [read_status(run_dir) for run_dir in run_dirs]
    scheduler = ask() if any(status is not None and status.state in UNFINISHED for status in statuses) else None
    return [
        Decision(run_dir=run_dir, action=Action.LEAVE, status=status)
        if only_waiting and status and status.state in ENDED
        else _decision(run_dir, status, retry, scheduler)
        for run_dir, status in zip(run_dirs, statuses, strict=True)
    ]


def unknown_liveness(decisions: Sequence[Decision]) -> str | None:
    """A warning about runs that are joined although their liveness is unknown; None without any."""
    unknown = [decision for decision in decisions if decision.unknown_liveness]
    if not unknown:
        return None
    status = unknown[0].status
    assert status is not None
    several = f"{len(unknown)} runs are" if len(unknown) > 1 else "one run is"
    example = f"{unknown[0].run_dir.name}, {status.state} on {status.host}" + (
        f" by {status.job}" if status.job else ""
    )
    return (
        f"{several} waited for, and nobody here can tell whether anything moves them on ({example}): if nothing does, "
        "retry=lost takes them over from their last checkpoint"
    )


def _decision(run_dir: Path, status: Status | None, retry: str | None, scheduler: Scheduler | None) -> Decision:
    alive = alive_or_unknown(run_dir, status, scheduler) if status is not None else False
    action = _action(status, retry, alive)
    return Decision(
        run_dir=run_dir, action=action, status=status, unknown_liveness=action is Action.JOIN and alive is None
    )


def _action(status: Status | None, retry: str | None, alive: bool | None) -> Action:
    if status is None or status.state == "PLANNED":
        return Action.START
    if status.state == "COMPLETED":
        return Action.KEEP
    if status.state == "FAILED":
        return Action.RESUME if retry in ("failed", "all") else Action.LEAVE
    if status.state == "PRUNED":
        return Action.RESUME if retry == "all" else Action.LEAVE
    if alive or (alive is None and retry not in ("lost", "all")):
        return Action.JOIN
    return Action.START if status.state == "QUEUED" and not status.step else Action.RESUME
