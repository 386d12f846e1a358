"""``python sweep.py -m search=NAME``: check everything, take the study up or begin it, run it, confirm, report.

Nothing is queued or written before everything has been checked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from omegaconf import DictConfig

from sweeps.grid import sweep as studies
from sweeps.launch import come_back, hours_allowed, jobs_folder, refusing
from sweeps.plan.check import Check, require_gpus, start_check
from sweeps.plan.origin import origin
from sweeps.plan.register import SweepRef, require_folder, require_room
from sweeps.queues.base import Pool
from sweeps.search import outcome, store
from sweeps.search.build import build, probe_cells
from sweeps.search.confirm import confirmation_probe
from sweeps.search.context import SearchContext
from sweeps.search.driver import Driver
from sweeps.search.overview import expected_s, opening, plan_text, require_affordable
from sweeps.search.progress import Progress
from sweeps.search.record import document
from sweeps.terminal.watch import interrupted
from sweeps.tracking import Tracker, absolute
from trainer.contract.config import ConfigError, require
from trainer.contract.errors import reason
from trainer.contract.identity import group_signature
from trainer.contract.liveness import lock
from trainer.contract.status import ExitCode
from trainer.contract.store import require_answer


def start(loader: Any, master: DictConfig, arguments: Sequence[str]) -> int:
    """The exit code: 0, 1 if trials failed, 2 after a sentence if nothing can run, 130 after Ctrl-C."""

    def run() -> int:
        context = build(loader, master, arguments)
        limit = hours_allowed({"max_hours": master["max_hours"], "yes": master["yes"]})
        known = check(context)
        expected = expected_s(context, known)
        if master.plan:
            print(plan_text(context, known, expected))
            return 0
        require_affordable(context, expected, limit)
        context.folder.mkdir(parents=True, exist_ok=True)
        held = lock(context.folder)
        if held is None:
            follow = f"python -m sweeps status {context.name} --watch"
            raise ConfigError(f"the search {context.name!r} is being run by another process: follow it with `{follow}`")
        with held:
            context.stop.unlink(missing_ok=True)
            return _run(context, expected)

    return refusing(run)


def check(context: SearchContext) -> optuna.Study | None:
    """The study as it stands, None before its first trial. Raises :class:`ConfigError`; writes nothing but a database's
    own tables."""
    queue, config = context.queue, context.config
    require_folder(context.output)
    queue.require_available()
    require(not queue.detach, "launcher.detach", True, "a search needs its launcher, which asks for trials")
    require_gpus(config, queue)
    require_room(context.output, context.settings.search.n_trials)
    uri = absolute(config["tracking"]["uri"])
    if uri is not None:
        require_answer(uri)
    probes = [*probe_cells(context), *confirmation_probe(context)]
    for warning in _once(start_check(probes, queue.trainer, here=queue.here)):
        print(f"warning: {warning}", file=sys.stderr)
    if not store.exists(context.storage):
        store.require_writable(context.storage)
        return None
    known = store.find(store.open_storage(context.storage), context.name)
    if known is not None:
        store.require_same(known, context.settings, group_signature(config))
    return known


def _once(started: Check) -> list[str]:
    """Warnings. Raises :class:`ConfigError` in which what is wrong with several of the configurations is said once."""
    try:
        return started.result()
    except ConfigError as error:
        lines = str(error).splitlines()
        bare = [line.rpartition(" (in ")[0] or line for line in lines]
        said = [line if bare.count(short) == 1 else short for line, short in zip(lines, bare, strict=True)]
        raise ConfigError("\n".join(dict.fromkeys(said))) from error


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
    print(opening(context, study, expected), flush=True)
    place = SweepRef(study=context.study, uri=uri, parent_run_id=parent, facts=facts)
    progress = Progress(context.settings, context.queue.concurrency)
    pool = context.queue.open(jobs_folder(context.study), [])
    driver = Driver(context, study, pool, place, progress)
    try:
        driver.run()
    except KeyboardInterrupt:
        progress.close()
        return _interrupted(context, pool, tracker, parent)
    except optuna.exceptions.StorageInternalError as error:
        progress.close()
        pool.leave()
        why = reason(error.__cause__ or error)
        print(f"error: the storage went away ({why}): running jobs go on\n{come_back(context.study)}", file=sys.stderr)
        return 1
    progress.close()
    return outcome.finish(context, study, driver, tracker, parent)


def _open_sweep(
    context: SearchContext, study: optuna.Study, tracker: Tracker | None, facts: Mapping[str, str]
) -> str | None:
    """Write ``sweep.json`` and begin the MLflow run that stands for the search, or go on with it."""
    paper = document(context, study) | {"provenance": facts, "output": str(context.output), "multirun": True}
    studies.save(context.folder, paper)
    if tracker is None:
        return None
    tags = {"command": context.command[:5000], "search": context.name, "git_revision": facts.get("git revision", "")}
    return tracker.open_sweep(paper, {key: value for key, value in tags.items() if value})


def _interrupted(context: SearchContext, pool: Pool, tracker: Tracker | None, parent: str | None) -> int:
    interrupted(pool, come_back(context.study))
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "STOPPED")
    return ExitCode.INTERRUPTED
