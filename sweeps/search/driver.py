"""The loop of a search: collect trials that ended, ask Optuna for another when a slot is free, until there are enough.

Everything it knows is in the study and in the run folders, so it may be killed between any two lines: a trial that was
left open is suggested again (to the same values), its runs are joined, taken up from their checkpoints, or read.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import TrialState

from sweeps.grid.cells import Cell
from sweeps.plan.reconcile import reconcile
from sweeps.plan.register import SweepRef, adopt, register
from sweeps.queues.base import Pool, job_fields
from sweeps.queues.liveness import close_dead, is_alive
from sweeps.queues.scheduler import Scheduler, ask
from sweeps.queues.slurm import ASK_EVERY_S
from sweeps.search.context import SearchContext
from sweeps.search.entropy_rule import EntropyRule
from sweeps.search.job import TrialJob, pruned_by
from sweeps.search.objectives import mean_over_seeds, num_better, value_of
from sweeps.search.progress import Progress
from sweeps.search.record import Ledger, spent
from sweeps.search.space import Value, suggest
from sweeps.search.store import sampler, trial
from sweeps.terminal import watch
from trainer.contract.config import ConfigError
from trainer.contract.status import UNFINISHED, read_status


@dataclass(slots=True, kw_only=True)
class OpenTrial:
    """A trial that has not ended."""

    trial: optuna.Trial
    values: Mapping[str, Value]
    cells: tuple[Cell, ...]
    """One for each seed of the search, of which the rung says how many are run."""
    rung: int = 0
    job: TrialJob | None = None
    tries: int = 0
    """How often it was taken up again after a failure."""
    begun: float = field(default_factory=time.time)


class Driver:
    """Runs a study to its number of trials."""

    def __init__(
        self, context: SearchContext, study: optuna.Study, pool: Pool, place: SweepRef, progress: Progress
    ) -> None:
        self._context, self._study, self._pool, self._place = context, study, pool, place
        self._search, self._rungs = context.settings.search, context.settings.search.rungs
        self._progress = progress
        self._ledger = Ledger(context, study)
        self._open: dict[int, OpenTrial] = {}
        self._failed_in_a_row = 0
        self._scheduler: Scheduler | None = None
        self._asked = float("-inf")
        self.late: list[Path] = []
        """Finished runs that this MLflow store has not heard of."""

    def run(self) -> None:
        """Return when every trial has ended, and no further one is wanted."""
        for frozen in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self._take_up(frozen.number)
        while True:
            self._pool.poll()
            for number in list(self._open):
                self._collect(number)
            while self._wants_more():
                self._take_up(None)
            self._pool.poll()
            self._progress.update(self._study, {number: self._run_dirs(item) for number, item in self._open.items()})
            if not self._open:
                return
            time.sleep(watch.LOOK_EVERY_S)

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled the search, so that its open trials wait for its next start."""
        return self._context.stop.exists()

    @property
    def gave_up(self) -> bool:
        """Whether so many trials failed in a row that no further one was asked for."""
        return self._failed_in_a_row >= self._search.max_failed

    def _wants_more(self) -> bool:
        begun = [item for item in self._study.get_trials(deepcopy=False) if item.state != TrialState.WAITING]
        room = len(self._open) < self._context.queue.concurrency
        return room and len(begun) < self._search.n_trials and not self.cancelled and not self.gave_up

    def _take_up(self, number: int | None) -> None:
        """Go on with the trial of this number, or ask for a new one."""
        begun = self._study.get_trials(deepcopy=False)
        self._study.sampler = sampler(self._search, len(begun) if number is None else number)
        asked = self._study.ask() if number is None else trial(self._study, number)
        values = suggest(asked, self._context.settings.space)
        try:
            cells = self._context.trial_cells(asked.number, values)
        except ConfigError as error:
            self._end(OpenTrial(trial=asked, values=values, cells=()), TrialState.FAIL, str(error).partition("\n")[0])
            return
        rung = int(asked.user_attrs.get("rung", 0))
        self._open[asked.number] = OpenTrial(trial=asked, values=values, cells=cells, rung=rung)
        self._begin(self._open[asked.number])

    def _begin(self, item: OpenTrial) -> None:
        """Queue what the trial's rung still needs; what others have done or are doing is left to them."""
        cells = item.cells[: self._rungs[item.rung]]
        run_dirs = [self._context.run_dir(cell) for cell in cells]
        decisions = reconcile(run_dirs, "failed")
        todo = [
            cell
            for cell, decision in zip(cells, decisions, strict=True)
            if decision.to_queue or self._pruned_elsewhere(decision.run_dir)
        ]
        busy = self._busy_dirs()
        todo = [cell for cell in todo if str(self._context.run_dir(cell)) not in busy]
        self._ledger.begun(item.trial, item.values, cells, item.rung)
        done = [cell for cell in cells if _state(self._context.run_dir(cell)) == "COMPLETED"]
        self.late += adopt(self._place, done)
        item.job = self._job(item, todo) if todo else None
        if item.job is not None:
            register(self._place, todo)
            self._pool.add(item.job)
        self._ledger.save()
        self._progress.begun(item.trial.number, item.values, len(todo))

    def _job(self, item: OpenTrial, todo: Sequence[Cell]) -> TrialJob:
        settings, search = self._context.settings, self._search
        objective = settings.objectives[0]
        first = str(self._context.run_dir(item.cells[0]))
        run_dirs = tuple(str(self._context.run_dir(cell)) for cell in todo)
        compared = not settings.several and search.pruner != "none" and first in run_dirs
        return TrialJob(
            run_dirs=run_dirs,
            name=self._context.name,
            number=item.trial.number,
            storage=self._context.storage,
            search=search,
            metric=search.prune_metric or objective.metric,
            last=objective.last,
            compared=first if compared else None,
            rule=EntropyRule(collapse=search.collapse, explosion=search.explosion, patience=search.patience),
            **job_fields(self._context.queue),
        )

    def _pruned_elsewhere(self, run_dir: Path) -> bool:
        """Whether a run was stopped by a search other than this, whose reasons are not ours."""
        by = pruned_by(run_dir)
        return _state(run_dir) == "PRUNED" and by is not None and by[0] != self._context.name

    def _run_dirs(self, item: OpenTrial) -> list[Path]:
        return [self._context.run_dir(cell) for cell in item.cells[: self._rungs[item.rung]]]

    def _busy_dirs(self) -> set[str]:
        """Runs of jobs that this driver has handed over and that have not ended."""
        jobs = [item.job for item in self._open.values() if item.job is not None]
        return {run_dir for job in jobs if self._pool.has(job) for run_dir in job.run_dirs}

    def _is_busy(self, run_dir: Path, ours: set[str]) -> bool:
        """Whether anybody is at work on a run, or going to be."""
        status = read_status(run_dir)
        if str(run_dir) in ours:
            return True
        if status is None or status.state not in UNFINISHED or status.pid == os.getpid():
            return False
        if (status.job or "").startswith("slurm:") and time.monotonic() - self._asked > ASK_EVERY_S:
            self._scheduler, self._asked = ask(), time.monotonic()
        return is_alive(run_dir, status, self._scheduler)

    def _collect(self, number: int) -> None:
        """Tell Optuna the outcome of a trial once all its runs have ended; nothing before."""
        item = self._open[number]
        run_dirs, ours = self._run_dirs(item), self._busy_dirs()
        if any(self._is_busy(run_dir, ours) for run_dir in run_dirs):
            return
        close_dead(run_dirs, over=True)
        states = [_state(run_dir) for run_dir in run_dirs]
        pruned = [pruned_by(path) for path, state in zip(run_dirs, states, strict=True) if state == "PRUNED"]
        if pruned:
            self._end(item, TrialState.PRUNED, pruned[0][1] if pruned[0] else "stopped by hand")
        elif "CANCELLED" in states and self.cancelled:
            del self._open[number]
        elif "CANCELLED" in states:
            self._end(item, TrialState.FAIL, "cancelled")
        elif set(states) == {"COMPLETED"}:
            self._climb(item, run_dirs)
        elif item.tries < self._search.retries:
            item.tries += 1
            self._begin(item)
        else:
            self._end(item, TrialState.FAIL, _why(run_dirs))

    def _climb(self, item: OpenTrial, run_dirs: Sequence[Path]) -> None:
        """All runs of a rung are complete: on to the next, or the end."""
        objectives, cells = self._context.settings.objectives, item.cells[: len(run_dirs)]
        values: dict[str, list[float]] = {}
        for cell, run_dir in zip(cells, run_dirs, strict=True):
            found = [value_of(run_dir, objective) for objective in objectives]
            missing = [o.metric for o, v in zip(objectives, found, strict=True) if v is None or not math.isfinite(v)]
            if missing:
                return self._end(item, TrialState.FAIL, f"{missing[0]} has no finite value in run {cell.signature}")
            values[str(cell.seed)] = [value for value in found if value is not None]
        item.trial.set_user_attr("values", values)
        if item.rung == len(self._rungs) - 1:
            return self._end(item, TrialState.COMPLETE, "")
        better, number = self._rivals(item, values)
        if better >= max(1, number // self._search.reduction):
            reason = (
                f"not promoted: {better} of {number} trials are better on {len(cells)} seed{'s' * (len(cells) > 1)}"
            )
            return self._end(item, TrialState.PRUNED, reason)
        item.rung += 1
        item.trial.set_user_attr("rung", item.rung)
        self._begin(item)

    def _rivals(self, item: OpenTrial, values: Mapping[str, Sequence[float]]) -> tuple[int, int]:
        """How many trials are better at this rung, and how many have come so far, this one included."""
        seeds = list(self._search.seeds)[: self._rungs[item.rung]]
        signs = [objective.sign for objective in self._context.settings.objectives]
        others = [
            mean
            for other in self._study.get_trials(deepcopy=False)
            if other.number != item.trial.number
            and (mean := mean_over_seeds(other.user_attrs.get("values", {}), seeds)) is not None
        ]
        mine = mean_over_seeds(values, seeds)
        assert mine is not None
        return num_better(mine, others, signs), len(others) + 1

    def _end(self, item: OpenTrial, state: TrialState, reason: str) -> None:
        """Write down what a trial came to, then tell the study."""
        number = item.trial.number
        self._ledger.ended(item.trial, reason, spent(self._run_dirs(item) if item.cells else []))
        seeds = item.trial.user_attrs.get("values", {})
        values = mean_over_seeds(seeds, self._search.seeds) if state == TrialState.COMPLETE else None
        told = self._study.tell(number, values, state=state, skip_if_finished=True)
        self._open.pop(number, None)
        self._failed_in_a_row = self._failed_in_a_row + 1 if state == TrialState.FAIL else 0
        self._ledger.save()
        self._progress.ended(self._study, told, reason)


def _state(run_dir: Path) -> str:
    status = read_status(run_dir)
    return status.state if status else "PLANNED"


def _why(run_dirs: Sequence[Path]) -> str:
    """What went wrong in the first run that did not come to its end."""
    for run_dir in run_dirs:
        status = read_status(run_dir)
        if status is None or status.state != "COMPLETED":
            return f"run {run_dir.name}: {(status.message if status else None) or 'ended without a word'}"
    return "its runs are complete"
