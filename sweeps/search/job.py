"""The job of a trial: trains its runs like any job, while a thread reads their metrics and prunes them.

The trainer knows nothing of searches: a pruned run gets a ``STOP`` file, finishes its step, saves and exits. If the
Optuna storage cannot be reached, training continues without pruning between trials.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from sweeps.queues.worker import Job
from sweeps.search.entropy_rule import ENTROPY, EntropyRule
from sweeps.search.objectives import series
from sweeps.search.settings import Search
from trainer.contract.records import read_records
from trainer.contract.run_folder import ask_to_stop, stop_request
from trainer.contract.status import read_status, write_status

LOOK_EVERY_S = 0.2
"""Seconds between two readings of the metrics; a step of a real model takes longer."""


@dataclass(frozen=True, kw_only=True)
class TrialJob(Job):
    """Runs of one trial that share a trainer process."""

    name: str
    """Name of the search."""
    number: int
    """Number of the trial."""
    storage: str
    search: Search
    metric: str
    """The metric that the pruner compares."""
    last: int
    """Number of newest values that are averaged."""
    compared: str | None
    """Run folder whose values are reported to Optuna's pruner; None: no comparison between trials."""
    rule: EntropyRule = field(default_factory=EntropyRule)

    def __call__(self) -> dict[str, str]:
        """Train every run to its end, or until it is pruned. Raises like :class:`~sweeps.queues.worker.Job`."""
        try:
            with _watched(_PruningWatcher(self)):
                return super().__call__()
        finally:
            for run_dir in map(Path, self.run_dirs):
                _note_end(run_dir, self.name)


def stop(run_dir: Path, name: str, reason: str) -> None:
    """Ask a run to stop because search ``name`` prunes it."""
    ask_to_stop(run_dir, f"prune {name}\n{reason}")


def pruned_by(run_dir: Path) -> tuple[str, str] | None:
    """(search, reason) of a run that a search asked to stop; None for any other."""
    head, _, reason = (stop_request(run_dir) or "").partition("\n")
    return (head.removeprefix("prune "), reason.strip()) if head.startswith("prune ") else None


def _note_end(run_dir: Path, name: str) -> None:
    """Record why a run was pruned; one that was pruned before its first step becomes PLANNED."""
    by, status = pruned_by(run_dir), read_status(run_dir)
    if by is None or by[0] != name or status is None or status.state not in ("PRUNED", "CANCELLED"):
        return
    if status.step:
        write_status(run_dir, "PRUNED", message=f"pruned by {name}: {by[1]}")
    else:
        (run_dir / "STOP").unlink()
        write_status(run_dir, "PLANNED", message="its trial was pruned before it began", job=None)


@contextlib.contextmanager
def _watched(watcher: _PruningWatcher) -> Iterator[None]:
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            with contextlib.suppress(OSError, ValueError):  # a record that is being rewritten is read again
                watcher.check()

    thread = threading.Thread(target=watch, name="pruning", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10.0)


class _PruningWatcher:
    """Reads the metrics of a job's runs, reports them to Optuna, and stops all runs if the trial is to be pruned."""

    def __init__(self, job: TrialJob) -> None:
        self._job = job
        self._records: dict[Path, list[dict[str, Any]]] = {Path(run_dir): [] for run_dir in job.run_dirs}
        self._offsets = dict.fromkeys(self._records, 0)
        self._trial: Any = None
        self._storage_failed = False
        self._stopped = False

    def check(self) -> None:
        """Read the new metrics and decide whether to prune."""
        for run_dir, records in self._records.items():
            if self._stopped:
                return
            new, self._offsets[run_dir] = read_records(run_dir / "metrics.jsonl", offset=self._offsets[run_dir])
            if not new:
                continue
            records += new
            reason = self._job.rule.verdict([value for _, value in series(records, ENTROPY)])
            if reason is None and str(run_dir) == self._job.compared:
                reason = self._compared(records)
            if reason is not None:
                self._stop(reason)

    def _stop(self, reason: str) -> None:
        """Stop every run of the trial that has not ended."""
        self._stopped = True
        for run_dir in self._records:
            status = read_status(run_dir)
            if status is None or status.state not in ("COMPLETED", "FAILED", "PRUNED", "CANCELLED"):
                stop(run_dir, self._job.name, reason)

    def _compared(self, records: list[dict[str, Any]]) -> str | None:
        """Report the metric of every new step; the reason if Optuna's pruner decides to prune."""
        if self._storage_failed:
            return None
        try:
            return self._report(series(records, self._job.metric))
        except Exception as error:  # the boundary: whatever a storage raises, it must not end a run
            print(f"pruning goes on without the study ({type(error).__name__}: {error})", flush=True)
            self._storage_failed = True
            return None

    def _report(self, values: list[tuple[int, float]]) -> str | None:
        if self._trial is None:
            self._trial = self._open()
        known = self._trial._get_latest_trial().intermediate_values
        for index, (step, _) in enumerate(values):
            if step < self._job.search.prune_after or step in known:
                continue
            value = fmean(value for _, value in values[max(0, index + 1 - self._job.last) : index + 1])
            self._trial.report(value, step)
            if self._trial.should_prune():
                return f"{self._job.search.pruner} at step {step}: {self._job.metric} {value:.4g}"
        return None

    def _open(self) -> Any:
        import optuna

        from sweeps.search.store import open_storage, pruner, trial_by_number

        study = optuna.load_study(
            study_name=self._job.name,
            storage=open_storage(self._job.storage),
            sampler=optuna.samplers.RandomSampler(),
            pruner=pruner(self._job.search),
        )
        return trial_by_number(study, self._job.number)
