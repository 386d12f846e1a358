"""From composed configurations to finished runs: check, reconcile, register, queue, follow, show.

Nothing is written before everything has been checked.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.after.finish import finish
from sweeps.after.manage import sync
from sweeps.compose.compose import Composed
from sweeps.compose.explain import explained
from sweeps.grid.cells import Member, cells, members
from sweeps.grid.sweep import Study, save, study_name
from sweeps.plan.check import require_gpus, start_check
from sweeps.plan.estimate import Estimate, estimate, shares
from sweeps.plan.origin import origin
from sweeps.plan.plan import opening, plan_text, require_affordable
from sweeps.plan.reconcile import Action, Decision, reconcile, unsure
from sweeps.plan.register import SweepRef, adopt, private_folder, register, require_folder, require_room
from sweeps.queues.base import Queue, job_fields, open_queue
from sweeps.queues.liveness import close_dead
from sweeps.queues.worker import Job
from sweeps.runs.progress import Followed
from sweeps.terminal.watch import interrupted, watch
from sweeps.tracking import Tracker, absolute
from trainer.contract.config import ConfigError, require
from trainer.contract.errors import unusable
from trainer.contract.files import room_for
from trainer.contract.status import ExitCode
from trainer.contract.store import require_answer

_LAUNCHES = itertools.count()
"""Two launches of one process in one second get folders of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What this invocation wants."""

    multirun: bool
    plan: bool = False
    retry: str | None = None
    only_waiting: bool = False
    """Start nothing but what still waits for a launcher: what failed, was lost, pruned or cancelled is left alone."""
    max_hours: float = math.inf
    """Hours of jobs (of GPUs, where jobs have some) above which nothing is queued; infinite once somebody said yes."""


def launch(composed: Iterable[Composed], *, multirun: bool) -> int:
    """Run what Hydra composed; returns the exit code: 0, 1 if a cell failed, 2 after a sentence if nothing can run."""

    def run() -> int:
        with explained(sys.argv[1:]):
            found = members(composed)
        first = found[0].config
        _refuse_half_a_factor(found, multirun)
        made = tuple(cells(found))
        for sentence in dict.fromkeys(sentence for member in found for sentence in member.left_out):
            print(f"warning: {sentence}", file=sys.stderr)
        command = shlex.join(["python", "sweep.py", *sys.argv[1:]])
        study = Study(
            name=study_name(made, multirun), command=command, output=Path(made[0].config["output"]), cells=made
        )
        return run_study(study, _request(first, multirun))

    return refusing(run)


def refusing(run: Callable[[], int]) -> int:
    """The exit code of ``run``, or 2 after a sentence for each thing that it refuses."""
    try:
        return run()
    except ConfigError as error:
        for sentence in str(error).splitlines():
            print(f"error: {sentence}", file=sys.stderr)
        return ExitCode.BAD_CONFIGURATION
    except OSError as error:
        print(f"error: {unusable(error)}", file=sys.stderr)
        return ExitCode.BAD_CONFIGURATION


def _request(config: Mapping[str, Any], multirun: bool) -> Request:
    plan, retry = bool(config["plan"]), config["retry"]
    return Request(multirun=multirun, plan=plan, retry=retry, max_hours=hours_allowed(config))


def hours_allowed(config: Mapping[str, Any]) -> float:
    """Hours above which nothing is queued; infinite once somebody said yes. Raises :class:`ConfigError`."""
    limit = config["max_hours"]
    valid = isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0
    require(valid, "max_hours", limit, "give hours, more than 0")
    return math.inf if config["yes"] else float(limit)


def _refuse_half_a_factor(found: Sequence[Member], multirun: bool) -> None:
    if found[0].config.get("search"):
        raise ConfigError("a search is a sweep: put -m before it (python sweep.py -m search=NAME)")
    factor = found[0].config.get("factor")
    if factor and not multirun:
        name = factor["name"]
        raise ConfigError(f"factor={name} is a sweep: put -m before it (python sweep.py -m factor={name})")
    if any(member.config.get("factor") != factor for member in found):
        raise ConfigError(
            "a sweep has one factor: run the factors one after another, or sweep a second key beside the first factor"
        )


def run_study(study: Study, request: Request) -> int:
    """Everything after the cells are known."""
    config = study.cells[0].config
    queue = open_queue(config["launcher"], [cell.config for cell in study.cells])
    require_folder(study.output)
    decisions = reconcile([study.run_dir(cell) for cell in study.cells], request.retry, request.only_waiting)
    todo = [cell for cell, decision in zip(study.cells, decisions, strict=True) if decision.to_queue]
    queue.require_available()
    require_gpus(config, queue)
    require_room(study.output, len(todo))
    uri = absolute(config["tracking"]["uri"])
    if uri is not None:
        require_answer(uri)
    check = start_check(todo, queue.trainer, here=queue.here) if todo else None
    if uri is not None and not request.plan:
        importlib.import_module("mlflow.tracking")  # takes seconds: they pass while the check runs
    doubt = unsure(decisions)
    for warning in [*(check.result() if check else []), *_store_warning(queue, uri), *([doubt] if doubt else [])]:
        print(f"warning: {warning}", file=sys.stderr)
    expected = estimate(study, decisions, queue)
    if request.plan:
        print(plan_text(study, decisions, queue, expected))
        return 0
    require_affordable(expected, queue, request.max_hours)
    with room_for(study.output):
        tracker = Tracker(uri, config["tracking"]["experiment"]) if uri is not None else None
        return _run(study, request, queue, tracker, decisions, expected)


def _store_warning(queue: Queue, uri: str | None) -> list[str]:
    if uri is None or not uri.startswith("sqlite:") or not queue.spreads:
        return []
    return [
        f"tracking.uri={uri!r} is a file, and jobs of several nodes would write to it: SQLite is not safe on network "
        "file systems; start `mlflow server` on one machine and give its address (runs lose nothing meanwhile: "
        "`python -m sweeps sync` fills what a store lacks)"
    ]


def _run(
    study: Study,
    request: Request,
    queue: Queue,
    tracker: Tracker | None,
    decisions: Sequence[Decision],
    expected: Estimate | None,
) -> int:
    facts = origin(study.command)
    document = study.document() | {"provenance": facts, "output": str(study.output)}
    parent = tracker.open_sweep(document, _tags(study, facts)) if tracker is not None and request.multirun else None
    save(study.folder, document | {"multirun": request.multirun, "max_hours": _finite(request.max_hours)})
    place = SweepRef(study=study, uri=tracker.uri if tracker else None, parent_run_id=parent, facts=facts)
    pairs = list(zip(study.cells, decisions, strict=True))
    todo = [cell for cell, decision in pairs if decision.to_queue]
    planned = shares(todo, queue.job_size(len(todo)))
    register(place, todo)
    late = adopt(place, [cell for cell, decision in pairs if decision.action in (Action.KEEP, Action.LEAVE)])
    jobs = [Job(run_dirs=tuple(str(study.run_dir(cell)) for cell in share), **job_fields(queue)) for share in planned]
    print(opening(study, decisions, len(jobs), queue, expected), flush=True)
    pool = queue.open(jobs_folder(study), jobs) if jobs else None
    if queue.detach:
        print(f"queued\n{come_back(study)}")
        return 0
    followed = [
        Followed(run_dir=decision.run_dir, level=cell.level.label, seed=str(cell.seed))
        for cell, decision in pairs
        if decision.to_queue or decision.action is Action.JOIN
    ]
    done_before = len(pairs) - len(followed)
    if not watch(followed, pool, done_before=done_before, concurrency=queue.concurrency):
        interrupted(pool, come_back(study))
        ended = close_dead([run.run_dir for run in followed], over=True)
        if tracker is not None and ended:
            sync(ended, queue.trainer)
        if tracker is not None and parent is not None:
            tracker.close_sweep(parent, "STOPPED")
        return ExitCode.INTERRUPTED
    return finish(study, tracker, parent, late)


def jobs_folder(study: Study) -> Path:
    """A new private folder for Submitit's files of this launch."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_LAUNCHES)}"
    return private_folder(study.folder / "jobs" / name)


def _finite(hours: float) -> float | None:
    return hours if math.isfinite(hours) else None


def come_back(study: Study) -> str:
    """How to look after a sweep that goes on, or stopped, without this launcher."""
    name = f"{study.name} --output {shlex.quote(str(study.output))}"
    return (
        f"to watch it: python -m sweeps status {name} --watch\n"
        f"to take it up again: python -m sweeps attach {name}\n"
        f"to go on, start the same sweep again: {study.command}"
    )


def _tags(study: Study, facts: Mapping[str, str]) -> dict[str, str]:
    factor = study.cells[0].config.get("factor") or {}
    revision = facts.get("git revision", "")
    tags = {"command": study.command[:5000], "factor": str(factor.get("name", "")), "git_revision": revision}
    return {key: value for key, value in tags.items() if value}
