"""The main loop of a search: report ended trials to Optuna, and start a new trial when a slot of the queue is free.

Its whole state is in the Optuna study and the run folders, so it may be killed at any moment. After a restart a trial
that had not ended gets the values it had, and its runs are read, followed or resumed from their checkpoints.
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
from sweeps.queues.liveness import is_alive, record_dead_runs
from sweeps.queues.scheduler import Scheduler, ask
from sweeps.queues.slurm import ASK_EVERY_S
from sweeps.search.context import SearchContext
from sweeps.search.entropy_rule import EntropyRule
from sweeps.search.job import TrialJob, pruned_by
from sweeps.search.objectives import mean_over_seeds, num_better, value_of
from sweeps.search.progress import SearchDisplay
from sweeps.search.record import TrialRecorder, trial_cost
from sweeps.search.space import Value, suggest
from sweeps.search.store import sampler, trial_by_number
from sweeps.terminal import watch
from trainer.contract.settings import ConfigError
from trainer.contract.status import UNFINISHED, read_status


@dataclass(slots=True, kw_only=True)
class OpenTrial:
    """A trial that has not ended."""

    trial: optuna.Trial
    values: Mapping[str, Value]
    cells: tuple[Cell, ...]
    """One for each seed of the search; the rung says how many of them are trained."""
    rung: int = 0
    job: TrialJob | None = None
    tries: int = 0
    """How often it was restarted after a failure."""
    begun: float = field(default_factory=time.time)


class Driver:
    """Runs trials until the study has as many as the search asks for."""

    def __init__(
        self, context: SearchContext, study: optuna.Study, pool: Pool, sweep_ref: SweepRef, progress: SearchDisplay
    ) -> None:
        self._context, self._study, self._pool, self._sweep_ref = context, study, pool, sweep_ref
        self._search, self._rungs = context.settings.search, context.settings.search.rungs
        self._progress = progress
        self._recorder = TrialRecorder(context, study)
        self._open: dict[int, OpenTrial] = {}
        self._failed_in_a_row = 0
        self._scheduler: Scheduler | None = None
        self._asked = float("-inf")
        self.adopted: list[Path] = []
        """Completed runs of earlier sweeps that the MLflow store does not hold yet."""

    def run(self) -> None:
        """Return when all trials have ended."""
        for frozen in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self._start_or_resume(frozen.number)
        while True:
            self._pool.poll()
            for number in list(self._open):
                self._collect(number)
            while self._wants_more():
                self._start_or_resume(None)
            self._pool.poll()
            self._progress.update(
                self._study, {number: self._run_dirs(open_trial) for number, open_trial in self._open.items()}
            )
            if not self._open:
                return
            time.sleep(watch.LOOK_EVERY_S)

    @property
    def cancelled(self) -> bool:
        """Whether the search was cancelled; its open trials are resumed at the next start."""
        return self._context.stop.exists()

    @property
    def gave_up(self) -> bool:
        """Whether too many trials failed in a row."""
        return self._failed_in_a_row >= self._search.max_failed

    def _wants_more(self) -> bool:
        trials = self._study.get_trials(deepcopy=False)
        begun = [trial for trial in trials if trial.state != TrialState.WAITING]
        room = len(self._open) < self._context.queue.concurrency
        return room and len(begun) < self._search.n_trials and not self.cancelled and not self.gave_up

    def _start_or_resume(self, number: int | None) -> None:
        """Resume the trial of this number; None: start a new one."""
        begun = self._study.get_trials(deepcopy=False)
        self._study.sampler = sampler(self._search, len(begun) if number is None else number)
        optuna_trial = self._study.ask() if number is None else trial_by_number(self._study, number)
        values = suggest(optuna_trial, self._context.settings.space)
        try:
            cells = self._context.trial_cells(optuna_trial.number, values)
        except ConfigError as error:
            self._end(
                OpenTrial(trial=optuna_trial, values=values, cells=()), TrialState.FAIL, str(error).partition("\n")[0]
            )
            return
        rung = int(optuna_trial.user_attrs.get("rung", 0))
        self._open[optuna_trial.number] = OpenTrial(trial=optuna_trial, values=values, cells=cells, rung=rung)
        self._begin(self._open[optuna_trial.number])

    def _begin(self, open_trial: OpenTrial) -> None:
        """Queue the runs that the trial's rung still needs, except those that are complete or in another job."""
        cells = open_trial.cells[: self._rungs[open_trial.rung]]
        run_dirs = [self._context.run_dir(cell) for cell in cells]
        decisions = reconcile(run_dirs, "failed")
        todo = [
            cell
            for cell, decision in zip(cells, decisions, strict=True)
            if decision.to_queue or self._pruned_elsewhere(decision.run_dir)
        ]
        busy = self._busy_dirs()
        todo = [cell for cell in todo if str(self._context.run_dir(cell)) not in busy]
        self._recorder.begun(open_trial.trial, open_trial.values, cells, open_trial.rung)
        completed = [cell for cell in cells if _state(self._context.run_dir(cell)) == "COMPLETED"]
        self.adopted += adopt(self._sweep_ref, completed)
        open_trial.job = self._job(open_trial, todo) if todo else None
        if open_trial.job is not None:
            register(self._sweep_ref, todo)
            self._pool.add(open_trial.job)
        self._recorder.save()
        self._progress.begun(open_trial.trial.number, open_trial.values, len(todo))

    def _job(self, open_trial: OpenTrial, todo: Sequence[Cell]) -> TrialJob:
        settings, search = self._context.settings, self._search
        objective = settings.objectives[0]
        first = str(self._context.run_dir(open_trial.cells[0]))
        run_dirs = tuple(str(self._context.run_dir(cell)) for cell in todo)
        compared = not settings.several and search.pruner != "none" and first in run_dirs
        return TrialJob(
            run_dirs=run_dirs,
            name=self._context.name,
            number=open_trial.trial.number,
            storage=self._context.storage,
            search=search,
            metric=search.prune_metric or objective.metric,
            last=objective.last,
            compared=first if compared else None,
            rule=EntropyRule(collapse=search.collapse, explosion=search.explosion, patience=search.patience),
            **job_fields(self._context.queue),
        )

    def _pruned_elsewhere(self, run_dir: Path) -> bool:
        """Whether another search pruned this run, by its own rules; then it is resumed."""
        by = pruned_by(run_dir)
        return _state(run_dir) == "PRUNED" and by is not None and by[0] != self._context.name

    def _run_dirs(self, open_trial: OpenTrial) -> list[Path]:
        return [self._context.run_dir(cell) for cell in open_trial.cells[: self._rungs[open_trial.rung]]]

    def _busy_dirs(self) -> set[str]:
        """Run folders of the unfinished jobs of this process."""
        jobs = [open_trial.job for open_trial in self._open.values() if open_trial.job is not None]
        return {run_dir for job in jobs if self._pool.has(job) for run_dir in job.run_dirs}

    def _is_busy(self, run_dir: Path, busy: set[str]) -> bool:
        """Whether a run is being trained or queued, by this process or another."""
        status = read_status(run_dir)
        if str(run_dir) in busy:
            return True
        if status is None or status.state not in UNFINISHED or status.pid == os.getpid():
            return False
        if (status.job or "").startswith("slurm:") and time.monotonic() - self._asked > ASK_EVERY_S:
            self._scheduler, self._asked = ask(), time.monotonic()
        return is_alive(run_dir, status, self._scheduler)

    def _collect(self, number: int) -> None:
        """Once all runs of a trial's rung have ended, go on to the next rung or report the trial to Optuna."""
        open_trial = self._open[number]
        run_dirs, busy = self._run_dirs(open_trial), self._busy_dirs()
        if any(self._is_busy(run_dir, busy) for run_dir in run_dirs):
            return
        record_dead_runs(run_dirs, queue_drained=True)
        states = [_state(run_dir) for run_dir in run_dirs]
        pruned = [pruned_by(path) for path, state in zip(run_dirs, states, strict=True) if state == "PRUNED"]
        if pruned:
            self._end(open_trial, TrialState.PRUNED, pruned[0][1] if pruned[0] else "stopped by hand")
        elif "CANCELLED" in states and self.cancelled:
            del self._open[number]
        elif "CANCELLED" in states:
            self._end(open_trial, TrialState.FAIL, "cancelled")
        elif set(states) == {"COMPLETED"}:
            self._finish_rung(open_trial, run_dirs)
        elif open_trial.tries < self._search.retries:
            open_trial.tries += 1
            self._begin(open_trial)
        else:
            self._end(open_trial, TrialState.FAIL, _failure_reason(run_dirs))

    def _finish_rung(self, open_trial: OpenTrial, run_dirs: Sequence[Path]) -> None:
        """All runs of a rung are complete: promote the trial to the next rung, or end it."""
        objectives, cells = self._context.settings.objectives, open_trial.cells[: len(run_dirs)]
        values: dict[str, list[float]] = {}
        for cell, run_dir in zip(cells, run_dirs, strict=True):
            results = [value_of(run_dir, objective) for objective in objectives]
            missing = [o.metric for o, v in zip(objectives, results, strict=True) if v is None or not math.isfinite(v)]
            if missing:
                return self._end(
                    open_trial, TrialState.FAIL, f"{missing[0]} has no finite value in run {cell.signature}"
                )
            values[str(cell.seed)] = [value for value in results if value is not None]
        open_trial.trial.set_user_attr("values", values)
        if open_trial.rung == len(self._rungs) - 1:
            return self._end(open_trial, TrialState.COMPLETE, "")
        better, number = self._rank_at_rung(open_trial, values)
        if better >= max(1, number // self._search.reduction):
            reason = (
                f"not promoted: {better} of {number} trials are better on {len(cells)} seed{'s' * (len(cells) > 1)}"
            )
            return self._end(open_trial, TrialState.PRUNED, reason)
        open_trial.rung += 1
        open_trial.trial.set_user_attr("rung", open_trial.rung)
        self._begin(open_trial)

    def _rank_at_rung(self, open_trial: OpenTrial, values: Mapping[str, Sequence[float]]) -> tuple[int, int]:
        """How many trials are better at this rung, and how many have reached it, this one included."""
        seeds = list(self._search.seeds)[: self._rungs[open_trial.rung]]
        signs = [objective.sign for objective in self._context.settings.objectives]
        others = [
            mean
            for other in self._study.get_trials(deepcopy=False)
            if other.number != open_trial.trial.number
            and (mean := mean_over_seeds(other.user_attrs.get("values", {}), seeds)) is not None
        ]
        means = mean_over_seeds(values, seeds)
        assert means is not None
        return num_better(means, others, signs), len(others) + 1

    def _end(self, open_trial: OpenTrial, state: TrialState, reason: str) -> None:
        """Record the outcome of a trial, then report it to the study."""
        number = open_trial.trial.number
        self._recorder.ended(
            open_trial.trial, reason, trial_cost(self._run_dirs(open_trial) if open_trial.cells else [])
        )
        seeds = open_trial.trial.user_attrs.get("values", {})
        values = mean_over_seeds(seeds, self._search.seeds) if state == TrialState.COMPLETE else None
        frozen = self._study.tell(number, values, state=state, skip_if_finished=True)
        self._open.pop(number, None)
        self._failed_in_a_row = self._failed_in_a_row + 1 if state == TrialState.FAIL else 0
        self._recorder.save()
        self._progress.ended(self._study, frozen, reason)


def _state(run_dir: Path) -> str:
    status = read_status(run_dir)
    return status.state if status else "PLANNED"


def _failure_reason(run_dirs: Sequence[Path]) -> str:
    """The error message of the first run that did not complete."""
    for run_dir in run_dirs:
        status = read_status(run_dir)
        if status is None or status.state != "COMPLETED":
            return f"run {run_dir.name}: {(status.message if status else None) or 'ended without a word'}"
    return "its runs are complete"
