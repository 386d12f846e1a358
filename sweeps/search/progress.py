"""Progress of a search on the terminal: a line when a trial begins or ends, and a live table."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps.plan.plan import duration
from sweeps.runs.progress import RunProgress
from sweeps.search.settings import Settings
from sweeps.search.space import Value, described
from trainer.contract.status import FINISHED


class SearchDisplay:
    """Writes lines to a stream; on a terminal also a live table."""

    def __init__(self, settings: Settings, concurrency: int, stream: TextIO | None = None) -> None:
        self._settings, self._concurrency = settings, concurrency
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._height = 0
        self._begun: dict[int, float] = {}
        self._took: list[float] = []
        self._followed: dict[Path, RunProgress] = {}

    def begun(self, number: int, values: Mapping[str, Value], num_runs: int) -> None:
        """A trial begins, or its next rung."""
        self._begun.setdefault(number, time.monotonic())
        runs = f"{num_runs} run{'s' * (num_runs != 1)}" if num_runs else "nothing to run"
        self._say(f"trial {number}: {runs}; {described(values)}")

    def ended(self, study: optuna.Study, frozen: FrozenTrial, reason: str) -> None:
        """A trial has ended."""
        if frozen.number in self._begun:
            self._took.append(time.monotonic() - self._begun.pop(frozen.number))
        values = f" {numbers(frozen.values)}" if frozen.state == TrialState.COMPLETE and frozen.values else ""
        why = f" ({reason})" if reason else ""
        self._say(f"trial {frozen.number}: {frozen.state.name.lower()}{values}{why}; {self.summary(study)}")

    def update(self, study: optuna.Study, running: Mapping[int, Sequence[Path]]) -> None:
        """Redraw the live table."""
        if not self._live:
            return
        rows = [f"  trial {number}: {self._figures(run_dirs)}" for number, run_dirs in running.items()]
        self._erase()
        width = shutil.get_terminal_size().columns - 1
        block = [line[:width] for line in [self.summary(study), *rows]]
        print("\n".join(block), file=self._stream, flush=True)
        self._height = len(block)

    def close(self) -> None:
        """Erase the live table."""
        self._erase()
        self._stream.flush()

    def summary(self, study: optuna.Study) -> str:
        """``7/30 trials, 2 running, 3 pruned; best 0.412 (trial 4); left about 12 min``."""
        count = counted(study)
        over = count[TrialState.COMPLETE] + count[TrialState.PRUNED] + count[TrialState.FAIL]
        parts = [f"{over}/{self._settings.search.n_trials} trials"]
        for state, word in (
            (TrialState.RUNNING, "running"),
            (TrialState.PRUNED, "pruned"),
            (TrialState.FAIL, "failed"),
        ):
            parts += [f"{count[state]} {word}"] if count[state] else []
        left = self._left_s(self._settings.search.n_trials - over)
        return "; ".join(filter(None, [", ".join(parts), best_text(study), f"left {duration(left)}" if left else ""]))

    def _left_s(self, trials: int) -> float | None:
        """Seconds until the last trial ends, from the mean duration of those that have ended."""
        if not self._took or trials <= 0:
            return None
        return sum(self._took) / len(self._took) * trials / min(self._concurrency, trials)

    def _figures(self, run_dirs: Sequence[Path]) -> str:
        runs = [self._followed.setdefault(path, RunProgress(run_dir=path, level=path.name)) for path in run_dirs]
        for run in runs:
            run.refresh()
        current = next((run for run in runs if run.state not in FINISHED), runs[-1])
        return "  ".join([f"seed {runs.index(current) + 1} of {len(runs)}", *current.figures()])

    def _say(self, line: str) -> None:
        self._erase()
        print(line, file=self._stream, flush=True)

    def _erase(self) -> None:
        if self._height:
            self._stream.write(f"\x1b[{self._height}A\x1b[J")
            self._height = 0


def counted(study: optuna.Study) -> Counter[TrialState]:
    """Trials by state."""
    return Counter(trial.state for trial in study.get_trials(deepcopy=False))


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best complete trial, or the Pareto front of several objectives."""
    if not study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        return []
    return study.best_trials if len(study.directions) > 1 else [study.best_trial]


def best_text(study: optuna.Study) -> str:
    """The best trial so far, or the size of the front, as a short text."""
    best = best_trials(study)
    if not best:
        return ""
    if len(study.directions) > 1:
        return f"front of {len(best)} (trials {', '.join(str(item.number) for item in best[:6])})"
    return f"best {numbers(best[0].values)} (trial {best[0].number})"


def numbers(values: Sequence[float]) -> str:
    """Values with 4 significant digits."""
    return ", ".join(f"{value:.4g}" for value in values)
