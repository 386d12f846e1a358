"""Runs a sweep: check its cells, compare them with existing run folders, write run folders, queue jobs, show results.

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
from sweeps.grid.cells import ResolvedConfig, cells, resolve_all
from sweeps.grid.earlier import with_earlier_claims
from sweeps.grid.sweep import Document, Sweep, load_document, save_document, sweep_name
from sweeps.plan.check import require_gpus, start_check
from sweeps.plan.estimate import Estimate, estimate, split_into_jobs
from sweeps.plan.memory import memory_table, needs, require_memory
from sweeps.plan.origin import origin
from sweeps.plan.plan import opening_line, plan_text, require_affordable
from sweeps.plan.reconcile import Action, Decision, reconcile, unknown_liveness
from sweeps.plan.register import SweepRef, adopt, private_folder, register, require_folder, require_room
from sweeps.queues.base import Queue, job_fields, open_queue
from sweeps.queues.liveness import record_dead_runs
from sweeps.queues.worker import Job
from sweeps.runs.progress import RunProgress
from sweeps.terminal.watch import ask_after_interrupt, watch
from sweeps.tracking import Tracker, absolute
from trainer.contract.errors import unusable
from trainer.contract.files import room_for
from trainer.contract.settings import ConfigError, require
from trainer.contract.status import ExitCode
from trainer.contract.store import require_answer

_LAUNCHES = itertools.count()
"""Part of the folder name, so that two launches of one process within a second get different folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How one command line asks for a sweep to be run: the settings that are not part of any cell."""

    multirun: bool
    plan: bool = False
    retry: str | None = None
    only_waiting: bool = False
    """Start only cells that were never started: those that failed, were lost, pruned or cancelled are left alone."""
    max_hours: float = math.inf
    """Job hours (GPU hours where jobs have GPUs) above which nothing is queued; infinite with ``yes=true``."""


def launch(composed: Iterable[Composed], *, multirun: bool) -> int:
    """Run what Hydra composed; returns the exit code: 0, 1 if a cell failed, 2 after an error message."""

    def run() -> int:
        with explained(sys.argv[1:]):
            configs = resolve_all(composed)
        first = configs[0].config
        _require_one_factor(configs, multirun)
        cells_of_sweep = tuple(cells(configs))
        for sentence in dict.fromkeys(sentence for member in configs for sentence in member.left_out):
            print(f"warning: {sentence}", file=sys.stderr)
        command = shlex.join(["python", "sweep.py", *sys.argv[1:]])
        sweep = Sweep(
            name=sweep_name(cells_of_sweep, multirun),
            command=command,
            output=Path(cells_of_sweep[0].config["output"]),
            cells=cells_of_sweep,
        )
        return run_sweep(sweep, _request(first, multirun))

    return exit_code_of(run)


def exit_code_of(run: Callable[[], int]) -> int:
    """The exit code of ``run``, or 2 after printing one line for every error in the configuration."""
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
    """Job hours above which nothing is queued; infinite with ``yes=true``. Raises :class:`ConfigError`."""
    limit = config["max_hours"]
    valid = isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0
    require(valid, "max_hours", limit, "give hours, more than 0")
    return math.inf if config["yes"] else float(limit)


def _require_one_factor(configs: Sequence[ResolvedConfig], multirun: bool) -> None:
    if configs[0].config.get("search"):
        raise ConfigError("a search is a sweep: put -m before it (python sweep.py -m search=NAME)")
    factor = configs[0].config.get("factor")
    if factor and not multirun:
        name = factor["name"]
        raise ConfigError(f"factor={name} is a sweep: put -m before it (python sweep.py -m factor={name})")
    if any(member.config.get("factor") != factor for member in configs):
        raise ConfigError(
            "a sweep has one factor: run the factors one after another, or sweep a second key beside the first factor"
        )


def run_sweep(sweep: Sweep, request: Request) -> int:
    """Check, queue and follow a sweep whose cells are known; returns the exit code."""
    config = sweep.cells[0].config
    queue = open_queue(config["launcher"], [cell.config for cell in sweep.cells])
    require_folder(sweep.output)
    decisions = reconcile([sweep.run_dir(cell) for cell in sweep.cells], request.retry, request.only_waiting)
    todo = [cell for cell, decision in zip(sweep.cells, decisions, strict=True) if decision.to_queue]
    queue.require_available()
    require_gpus(config, queue)
    require_room(sweep.output, len(todo))
    uri = absolute(config["tracking"]["uri"])
    if uri is not None:
        require_answer(uri)
    check = start_check(todo, queue.trainer, on_this_machine=queue.is_local) if todo else None
    if todo and sys.stderr.isatty():
        print(f"checking {len(todo)} configuration{'s' * (len(todo) != 1)} ...", file=sys.stderr)
    if uri is not None and not request.plan:
        importlib.import_module("mlflow.tracking")  # takes seconds: they pass while the check runs
    liveness_warning = unknown_liveness(decisions)
    warnings = [
        *(check.result() if check else []),
        *_store_warning(queue, uri),
        *([liveness_warning] if liveness_warning else []),
    ]
    memory = needs([cell.config for cell in todo], queue)
    require_memory(memory)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    expected = estimate(sweep, decisions, queue)
    if request.plan:
        print("\n".join(filter(None, [plan_text(sweep, decisions, queue, expected), memory_table(memory)])))
        return 0
    require_affordable(expected, queue, request.max_hours)
    print(memory_table(memory), end="\n" * bool(memory), flush=True)
    with room_for(sweep.output):
        tracker = Tracker(uri, config["tracking"]["experiment"]) if uri is not None else None
        return _run(sweep, request, queue, tracker, decisions, expected)


def _store_warning(queue: Queue, uri: str | None) -> list[str]:
    if uri is None or not uri.startswith("sqlite:") or not queue.multi_node:
        return []
    return [
        f"tracking.uri={uri!r} is a file, and jobs of several nodes would write to it: SQLite is not safe on network "
        "file systems; start `mlflow server` on one machine and give its address (runs lose nothing meanwhile: "
        "`python -m sweeps sync` fills what a store lacks)"
    ]


def _run(
    sweep: Sweep,
    request: Request,
    queue: Queue,
    tracker: Tracker | None,
    decisions: Sequence[Decision],
    expected: Estimate | None,
) -> int:
    facts = origin(sweep.command)
    document = _document(sweep) | {"provenance": facts, "output": str(sweep.output)}
    parent = tracker.open_sweep(document, _tags(sweep, facts)) if tracker is not None and request.multirun else None
    if tracker is not None:
        tracker.describe(sweep.name, sweep.cells[0].config["evaluation"])
    save_document(sweep.folder, document | {"multirun": request.multirun, "max_hours": _finite(request.max_hours)})
    sweep_ref = SweepRef(sweep=sweep, uri=tracker.uri if tracker else None, parent_run_id=parent, facts=facts)
    pairs = list(zip(sweep.cells, decisions, strict=True))
    todo = [cell for cell, decision in pairs if decision.to_queue]
    signatures = {cell.signature for cell in todo}
    ordered = [cell for cell in sweep.in_queue_order if cell.signature in signatures]
    job_cells = split_into_jobs(ordered, queue.job_size(len(todo)))
    register(sweep_ref, todo)
    adopted = adopt(sweep_ref, [cell for cell, decision in pairs if decision.action in (Action.KEEP, Action.LEAVE)])
    jobs = [
        Job(run_dirs=tuple(str(sweep.run_dir(cell)) for cell in cells_of_job), **job_fields(queue))
        for cells_of_job in job_cells
    ]
    print(opening_line(sweep, decisions, len(jobs), queue, expected), flush=True)
    pool = queue.open(jobs_folder(sweep), jobs) if jobs else None
    if queue.detach:
        print(f"queued\n{follow_up_commands(sweep)}")
        return 0
    followed = [
        RunProgress(run_dir=decision.run_dir, level=cell.level.label, seed=str(cell.seed))
        for cell, decision in pairs
        if decision.to_queue or decision.action is Action.JOIN
    ]
    done_before = len(pairs) - len(followed)
    if not watch(followed, pool, done_before=done_before, concurrency=queue.concurrency):
        ask_after_interrupt(pool, follow_up_commands(sweep))
        ended = record_dead_runs([run.run_dir for run in followed], queue_drained=True)
        if tracker is not None and ended:
            sync(ended, queue.trainer)
        if tracker is not None and parent is not None:
            tracker.close_sweep(parent, "STOPPED")
        return ExitCode.INTERRUPTED
    return finish(sweep, tracker, parent, adopted)


def _document(sweep: Sweep) -> Document:
    """The content of ``sweep.json``; a study of claims keeps those of its earlier starts."""
    document = sweep.document()
    if not sweep.claims or not (sweep.folder / "sweep.json").is_file():
        return document
    earlier = load_document(sweep.output, sweep.name)
    existing = {path.name for path in (sweep.output / "runs").glob("*")}
    return with_earlier_claims(document, earlier, existing)


def jobs_folder(sweep: Sweep) -> Path:
    """A new private folder for Submitit's files of this launch."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_LAUNCHES)}"
    return private_folder(sweep.folder / "jobs" / name)


def _finite(hours: float) -> float | None:
    return hours if math.isfinite(hours) else None


def follow_up_commands(sweep: Sweep) -> str:
    """The commands with which to follow or resume a sweep after this process has ended."""
    name = f"{sweep.name} --output {shlex.quote(str(sweep.output))}"
    return (
        f"to watch it: python -m sweeps status {name} --watch\n"
        f"to take it up again: python -m sweeps attach {name}\n"
        f"to go on, start the same sweep again: {sweep.command}"
    )


def _tags(sweep: Sweep, facts: Mapping[str, str]) -> dict[str, str]:
    factor = sweep.cells[0].config.get("factor") or {}
    revision = facts.get("git revision", "")
    claims = ",".join(str(claim["number"]) for claim in sweep.claims)
    tags = {
        "command": sweep.command[:5000],
        "factor": str(factor.get("name", "")),
        "claims": claims,
        "git_revision": revision,
    }
    return {key: value for key, value in tags.items() if value}
