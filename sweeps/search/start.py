"""``python sweep.py -m search=NAME``: checks everything, creates or loads the Optuna study, and runs the search.

Nothing is queued or written before everything has been checked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from omegaconf import DictConfig

from sweeps.grid.sweep import save_document
from sweeps.launch import exit_code_of, follow_up_commands, hours_allowed, jobs_folder
from sweeps.plan.check import Check, require_gpus, start_check
from sweeps.plan.memory import memory_table, needs, require_memory
from sweeps.plan.origin import origin
from sweeps.plan.register import SweepRef, require_folder, require_room
from sweeps.queues.base import Pool
from sweeps.search import outcome, store
from sweeps.search.build import build, check_cells
from sweeps.search.confirm import confirmation_check_cell
from sweeps.search.context import SearchContext
from sweeps.search.driver import Driver
from sweeps.search.overview import expected_s, opening_lines, plan_text, require_affordable
from sweeps.search.progress import SearchDisplay
from sweeps.search.record import document
from sweeps.terminal.watch import ask_after_interrupt
from sweeps.tracking import Tracker, absolute
from trainer.contract.errors import reason
from trainer.contract.identity import group_signature
from trainer.contract.liveness import lock
from trainer.contract.settings import ConfigError, require
from trainer.contract.status import ExitCode
from trainer.contract.store import require_answer


def start(loader: Any, master: DictConfig, arguments: Sequence[str]) -> int:
    """Run the search; the exit code: 0, 1 if trials failed, 2 after an error message, 130 after Ctrl-C."""

    def run() -> int:
        context = build(loader, master, arguments)
        limit = hours_allowed({"max_hours": master["max_hours"], "yes": master["yes"]})
        existing = check(context)
        expected = expected_s(context, existing)
        if master.plan:
            print(plan_text(context, existing, expected))
            return 0
        require_affordable(context, expected, limit)
        context.folder.mkdir(parents=True, exist_ok=True)
        search_lock = lock(context.folder)
        if search_lock is None:
            follow = f"python -m sweeps status {context.name} --watch"
            raise ConfigError(f"the search {context.name!r} is being run by another process: follow it with `{follow}`")
        with search_lock:
            context.stop.unlink(missing_ok=True)
            return _run(context, expected)

    return exit_code_of(run)


def check(context: SearchContext) -> optuna.Study | None:
    """Check the search; returns its study, None if there is none yet. Raises :class:`ConfigError`.

    Writes nothing, except that opening a database creates Optuna's tables.
    """
    queue, config = context.queue, context.config
    require_folder(context.output)
    queue.require_available()
    require(not queue.detach, "launcher.detach", True, "a search needs its launcher, which asks for trials")
    require_gpus(config, queue)
    require_room(context.output, context.settings.search.n_trials)
    uri = absolute(config["tracking"]["uri"])
    if uri is not None:
        require_answer(uri)
    probes = [*check_cells(context), *confirmation_check_cell(context)]
    warnings = _deduplicated(start_check(probes, queue.trainer, on_this_machine=queue.is_local))
    memory = needs([config], queue)
    require_memory(memory)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(memory_table(memory), end="\n" * bool(memory), flush=True)
    if not store.exists(context.storage):
        store.require_writable(context.storage)
        return None
    existing = store.find(store.open_storage(context.storage), context.name)
    if existing is not None:
        store.require_same(existing, context.settings, group_signature(config))
    return existing


def _deduplicated(started: Check) -> list[str]:
    """The warnings of a check. Raises :class:`ConfigError`, with a problem of several configurations only once."""
    try:
        return started.result()
    except ConfigError as error:
        lines = str(error).splitlines()
        bare = [line.rpartition(" (in ")[0] or line for line in lines]
        shortened = [line if bare.count(short) == 1 else short for line, short in zip(lines, bare, strict=True)]
        raise ConfigError("\n".join(dict.fromkeys(shortened))) from error


def _run(context: SearchContext, expected: float | None) -> int:
    facts = origin(context.command)
    attributes = {
        "search": context.settings.plain() | {"steps": context.steps, "storage": context.storage},
        "base": group_signature(context.config),
        "baseline": context.tuned({}) + list(context.settings.search.baseline),
        "command": context.command,
        "origin": facts,
    }
    study = store.create(store.open_storage(context.storage), context.name, context.settings, attributes)
    uri = absolute(context.config["tracking"]["uri"])
    tracker = Tracker(uri, context.config["tracking"]["experiment"]) if uri is not None else None
    parent = _open_sweep(context, study, tracker, facts)
    print(opening_lines(context, study, expected), flush=True)
    sweep_ref = SweepRef(sweep=context.sweep, uri=uri, parent_run_id=parent, facts=facts)
    progress = SearchDisplay(context.settings, context.queue.concurrency)
    pool = context.queue.open(jobs_folder(context.sweep), [])
    driver = Driver(context, study, pool, sweep_ref, progress)
    try:
        driver.run()
    except KeyboardInterrupt:
        progress.close()
        return _interrupted(context, pool, tracker, parent)
    except optuna.exceptions.StorageInternalError as error:
        progress.close()
        pool.leave()
        cause = reason(error.__cause__ or error)
        print(
            f"error: the storage went away ({cause}): running jobs go on\n{follow_up_commands(context.sweep)}",
            file=sys.stderr,
        )
        return 1
    progress.close()
    return outcome.finish(context, study, driver, tracker, parent)


def _open_sweep(
    context: SearchContext, study: optuna.Study, tracker: Tracker | None, facts: Mapping[str, str]
) -> str | None:
    """Write ``sweep.json`` and create or reopen the parent run of the search in MLflow; returns its ID."""
    sweep_document = document(context, study) | {"provenance": facts, "output": str(context.output), "multirun": True}
    save_document(context.folder, sweep_document)
    if tracker is None:
        return None
    tags = {"command": context.command[:5000], "search": context.name, "git_revision": facts.get("git revision", "")}
    return tracker.open_sweep(sweep_document, {key: value for key, value in tags.items() if value})


def _interrupted(context: SearchContext, pool: Pool, tracker: Tracker | None, parent: str | None) -> int:
    ask_after_interrupt(pool, follow_up_commands(context.sweep))
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "STOPPED")
    return ExitCode.INTERRUPTED
