"""From composed configurations to finished runs: check, reconcile, register, queue, follow, show.

Called by ``sweep.py`` (through Hydra) and by ``python -m sweeps resume``. Nothing is written before everything has been
checked.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.cells import cells
from sweeps.check import start_check
from sweeps.compose import Composed
from sweeps.finish import finish
from sweeps.follow import Followed
from sweeps.origin import origin
from sweeps.plan import opening, plan_text
from sweeps.queues.base import Queue, job_fields, open_queue
from sweeps.reconcile import Action, Decision, reconcile
from sweeps.register import Place, adopt, private_folder, register, require_folder, require_room
from sweeps.study import Study, save, study_name
from sweeps.tracking import Tracker, absolute, require_answer
from sweeps.watch import interrupted, watch
from sweeps.worker import Job
from trainer.config import ConfigError

BAD_CONFIGURATION = 2
INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What this invocation wants."""

    multirun: bool
    plan: bool = False
    retry: str | None = None


def launch(composed: Sequence[Composed], *, multirun: bool) -> int:
    """Run what Hydra composed; returns the exit code: 0, 1 if a cell failed, 2 after a sentence if nothing can run."""
    try:
        first = composed[0].config
        _refuse_half_a_factor(composed, multirun)
        made = tuple(cells(composed))
        command = shlex.join(["python", "sweep.py", *sys.argv[1:]])
        study = Study(
            name=study_name(made, multirun), command=command, output=Path(made[0].config["output"]), cells=made
        )
        return run_study(study, Request(multirun=multirun, plan=bool(first.plan), retry=first.retry))
    except ConfigError as error:
        for sentence in str(error).splitlines():
            print(f"error: {sentence}", file=sys.stderr)
        return BAD_CONFIGURATION
    except OSError as error:
        where = error.filename or "a file"
        print(f"error: {where} cannot be used ({error.strerror}): mend it, or choose another output", file=sys.stderr)
        return BAD_CONFIGURATION


def _refuse_half_a_factor(composed: Sequence[Composed], multirun: bool) -> None:
    factor = composed[0].config.get("factor")
    if factor and not multirun:
        raise ConfigError(
            f"factor={factor.name} is a sweep: put -m before it (python sweep.py -m factor={factor.name})"
        )
    if any(item.config.get("factor") != factor for item in composed):
        raise ConfigError(
            "a sweep has one factor: run the factors one after another, or sweep a second key beside the first factor"
        )


def run_study(study: Study, request: Request) -> int:
    """Everything after the cells are known."""
    config = study.cells[0].config
    queue = open_queue(config["launcher"])
    require_folder(study.output)
    decisions = reconcile([study.run_dir(cell) for cell in study.cells], request.retry)
    todo = [cell for cell, decision in zip(study.cells, decisions, strict=True) if decision.to_queue]
    queue.require_available()
    require_room(study.output, len(todo))
    uri = absolute(config["tracking"]["uri"])
    if uri is not None:
        require_answer(uri)
    check = start_check(todo, queue.trainer) if todo else None
    if uri is not None and not request.plan:
        importlib.import_module("mlflow.tracking")  # takes seconds: they pass while the check runs
    for warning in check.result() if check else []:
        print(f"warning: {warning}", file=sys.stderr)
    if request.plan:
        print(plan_text(study, decisions, queue.concurrency))
        return 0
    tracker = Tracker(uri, config["tracking"]["experiment"]) if uri is not None else None
    return _run(study, request, queue, tracker, decisions)


def _run(study: Study, request: Request, queue: Queue, tracker: Tracker | None, decisions: Sequence[Decision]) -> int:
    facts = origin(study.command)
    document = study.document() | {"provenance": facts, "output": str(study.output)}
    parent = tracker.open_sweep(document, _tags(study, facts)) if tracker is not None and request.multirun else None
    save(study.folder, document | {"multirun": request.multirun})
    place = Place(study=study, uri=tracker.uri if tracker else None, parent_run_id=parent, facts=facts)
    pairs = list(zip(study.cells, decisions, strict=True))
    todo = [cell for cell, decision in pairs if decision.to_queue]
    todo.sort(key=lambda cell: cell.seed)  # all levels of one seed first: a comparison is there early
    queued = register(place, todo)
    late = adopt(place, [cell for cell, decision in pairs if decision.action in (Action.KEEP, Action.LEAVE)])
    size = queue.job_size(len(queued))
    shares = [queued[start : start + size] for start in range(0, len(queued), size)]
    jobs = [Job(run_dirs=tuple(map(str, share)), **job_fields(queue)) for share in shares]
    print(opening(study, decisions, len(jobs), queue.concurrency), flush=True)
    folder = study.folder / "jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    pool = queue.open(private_folder(folder), jobs) if jobs else None
    if queue.detach:
        print(f"queued; follow it with: python -m sweeps status {study.name} --output {study.output}")
        return 0
    followed = [
        Followed(run_dir=decision.run_dir, name=cell.name)
        for cell, decision in pairs
        if decision.to_queue or decision.action is Action.JOIN
    ]
    done_before = len(pairs) - len(followed)
    if not watch(followed, pool, done_before=done_before, concurrency=queue.concurrency):
        interrupted(pool, study.command)
        if tracker is not None and parent is not None:
            tracker.close_sweep(parent, "STOPPED")
        return INTERRUPTED
    return finish(study, tracker, parent, late)


def _tags(study: Study, facts: Mapping[str, str]) -> dict[str, str]:
    factor = study.cells[0].config.get("factor") or {}
    revision = facts.get("git revision", "")
    tags = {"command": study.command[:5000], "factor": str(factor.get("name", "")), "git_revision": revision}
    return {key: value for key, value in tags.items() if value}
