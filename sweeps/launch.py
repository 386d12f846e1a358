"""From composed configurations to finished runs: check, reconcile, register, queue, follow, show.

Called by ``sweep.py`` (through Hydra) and by ``python -m sweeps resume``. Nothing is written before everything has been
checked.
"""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.cells import cells
from sweeps.check import start_check
from sweeps.compose import Composed
from sweeps.finish import failures, show_results, ui_line, unfinished
from sweeps.follow import Display, Followed, watch
from sweeps.origin import origin
from sweeps.plan import plan_text
from sweeps.queues.base import Pool, Queue, job_fields, open_queue
from sweeps.queues.slurm import living_jobs
from sweeps.reconcile import Action, Decision, reconcile
from sweeps.register import register, require_folder, require_room
from sweeps.runs import is_alive, read_status, write_status
from sweeps.study import Study, save, study_name
from sweeps.tracking import Tracker, absolute, require_answer
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
    uri = absolute(config["tracking"]["uri"])
    run_dirs = [study.run_dir(cell) for cell in study.cells]
    require_folder(study.output)
    decisions = reconcile(run_dirs, request.retry)
    todo = [cell for cell, decision in zip(study.cells, decisions, strict=True) if decision.to_queue]
    queue.require_available()
    require_room(study.output, len(todo))
    if uri is not None:
        require_answer(uri)
    check = start_check(todo, queue.trainer) if todo else None
    tracker_module = (
        importlib.import_module("mlflow.tracking") if uri and not request.plan else None
    )  # seconds, while the check runs
    for warning in check.result() if check else []:
        print(f"warning: {warning}", file=sys.stderr)
    if request.plan:
        print(plan_text(study, decisions, queue.concurrency))
        return 0
    tracker = Tracker(uri, config["tracking"]["experiment"]) if uri and tracker_module else None
    return _run(study, request, queue, tracker, decisions)


def _run(study: Study, request: Request, queue: Queue, tracker: Tracker | None, decisions: Sequence[Decision]) -> int:
    facts = origin(study.command)
    document = study.document() | {"provenance": facts, "output": str(study.output)}
    parent = None
    if tracker is not None and request.multirun:
        parent = tracker.open_sweep(document, _tags(study, facts))
    save(study.folder, document | {"multirun": request.multirun, "parent_run_id": parent})
    todo = [cell for cell, decision in zip(study.cells, decisions, strict=True) if decision.to_queue]
    todo.sort(key=lambda cell: cell.seed)  # all levels of one seed first: a comparison is there early
    uri = tracker.uri if tracker else None
    run_dirs = register(study, todo, uri=uri, parent_run_id=parent, facts=facts)
    size = queue.job_size(len(run_dirs))
    jobs = [
        Job(run_dirs=tuple(map(str, run_dirs[at : at + size])), **job_fields(queue))
        for at in range(0, len(run_dirs), size)
    ]
    print(_opening(study, decisions, jobs, queue))
    pool = queue.open(study.folder / "jobs" / time.strftime("%Y%m%d-%H%M%S"), jobs) if jobs else None
    if queue.detach:
        print(f"queued; follow it with: python -m sweeps status {study.name} --output {study.output}")
        return 0
    interrupted = _follow(study, decisions, pool, queue)
    return _close(study, request, tracker, parent, interrupted)


def _tags(study: Study, facts: Mapping[str, str]) -> dict[str, str]:
    factor = study.cells[0].config.get("factor") or {}
    tags = {
        "command": study.command,
        "factor": str(factor.get("name", "")),
        "git_revision": facts.get("git revision", ""),
    }
    return {key: value[:5000] for key, value in tags.items() if value}


def _opening(study: Study, decisions: Sequence[Decision], jobs: Sequence[Job], queue: Queue) -> str:
    counts = {action: sum(decision.action is action for decision in decisions) for action in Action}
    before = ", ".join(
        f"{counts[action]} {action}" for action in (Action.KEEP, Action.JOIN, Action.LEAVE) if counts[action]
    )
    num_runs = sum(len(job.run_dirs) for job in jobs)
    work = (
        f"{num_runs} to run in {len(jobs)} job{'s' * (len(jobs) != 1)}, {queue.concurrency} at a time"
        if jobs
        else "nothing to run"
    )
    return f"{study.name}: {len(decisions)} cell{'s' * (len(decisions) != 1)}; {before + '; ' if before else ''}{work}"


def _follow(study: Study, decisions: Sequence[Decision], pool: Pool | None, queue: Queue) -> bool:
    """Show progress until everything has ended; True if a person interrupted it."""
    pairs = [
        (cell, decision)
        for cell, decision in zip(study.cells, decisions, strict=True)
        if decision.to_queue or decision.action is Action.JOIN
    ]
    joined = [decision.run_dir for _, decision in pairs if decision.action is Action.JOIN]
    runs = [Followed(run_dir=decision.run_dir, name=cell.name) for cell, decision in pairs]
    display = Display(runs, done_before=len(decisions) - len(runs), concurrency=queue.concurrency)
    try:
        watch(display, lambda: _busy(pool, joined))
        return False
    except KeyboardInterrupt:
        display.close()
        _interrupted(study, pool)
        return True


def _busy(pool: Pool | None, joined: Sequence[Path]) -> bool:
    working = pool is not None and pool.poll()
    return working or any(
        (status := read_status(run_dir)) is not None and is_alive(run_dir, status, None) for run_dir in joined
    )


def _interrupted(study: Study, pool: Pool | None) -> None:
    """Ctrl-C: ask once what becomes of running cells; without a terminal they go on."""
    answer = "leave"
    if sys.stdin.isatty():
        try:
            answer = (
                input("\ninterrupted: [s]top the running cells after their step, or [l]eave them running? [s] ")
                .strip()
                .lower()
                or "stop"
            )
        except (EOFError, KeyboardInterrupt):
            answer = "stop"
    if pool is not None and answer.startswith("s"):
        print("stopping: each running cell finishes its step and saves")
        pool.stop()
    elif pool is not None:
        pool.leave()
    print(f"to go on, start the same sweep again: {study.command}")


def _close(study: Study, request: Request, tracker: Tracker | None, parent: str | None, interrupted: bool) -> int:
    """Name what went wrong, show the results, and turn it into an exit code."""
    lost = [] if interrupted else _mark_lost(study)
    bad = failures(study)
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "STOPPED" if interrupted else "FAILED" if bad else "COMPLETED")
    if lost and tracker is not None:  # nobody else will end their MLflow runs
        queue = open_queue(study.cells[0].config["launcher"])
        subprocess.run([sys.executable, *queue.trainer, "--sync", *map(str, lost)], check=False, capture_output=True)
    if tracker is not None and request.multirun and not interrupted:
        show_results(study, tracker.uri)
    elif tracker is not None:
        print(f"compare    {ui_line(tracker.uri)}")
    print(f"runs       {study.output / 'runs'}" if request.multirun else f"run        {study.run_dir(study.cells[0])}")
    for line in [*unfinished(study), *bad]:
        print(line, file=sys.stderr)
    return INTERRUPTED if interrupted else 1 if bad else 0


def _mark_lost(study: Study) -> list[Path]:
    """Runs whose job has ended without a word are LOST from now on; the next launch takes them up again."""
    lost = []
    for cell in study.cells:
        run_dir = study.run_dir(cell)
        status = read_status(run_dir)
        if status is None or status.state not in ("QUEUED", "RUNNING"):
            continue
        # Our own queue is over: what still waits for this very process has nobody left.
        if status.pid == os.getpid() or not is_alive(run_dir, status, living_jobs()):
            if (run_dir / "STOP").exists():
                write_status(run_dir, "CANCELLED", message="cancelled")
            else:
                write_status(run_dir, "LOST", message="its process ended without a word (killed, or out of memory)")
            lost.append(run_dir)
    return lost
