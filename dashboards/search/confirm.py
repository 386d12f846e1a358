"""The confirmation of a search: the tuned configurations compared with the untuned default on fresh seeds.

It also gives the selection bias (winner's curse): how much better a trial's reported value was than its value on fresh
seeds. Values are read from ``metrics.jsonl``, like those of the search.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dashboards.search.load import OptimizedMetric, SearchData, read_document
from dashboards.search.outcome import tuned_trials
from dashboards.statistics.intervals import Interval, PairedEffect, bounded_interval, paired_effect
from dashboards.sweep.hypothesis import MIN_SEEDS
from dashboards.sweep.names import evaluation_keys, suite_name


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedComparison:
    """One tuned configuration compared with the untuned default in one metric, on the fresh seeds that both have."""

    level: str
    trial: int
    objective: OptimizedMetric
    unseen: bool
    """Whether the metric belongs to a suite that no objective of the search used."""
    tuned: Interval
    untuned: Interval
    effect: PairedEffect
    """Tuned minus untuned."""
    reported: float
    """The trial's value in the search; NaN for a metric that is no objective."""
    selection_bias: Interval
    """Reported minus confirmed value; its interval is that of the confirmed mean, with the reported value fixed."""

    @property
    def better(self) -> bool | None:
        """Whether the tuned one is better; None if the 95 % interval contains 0 or there are fewer than 3 seeds."""
        if self.effect.difference.count < MIN_SEEDS:
            return None
        low, high = sorted(
            (self.objective.sign * self.effect.difference.low, self.objective.sign * self.effect.difference.high)
        )
        return True if low > 0 else False if high < 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """All comparisons on the fresh seeds."""

    comparisons: tuple[TunedComparison, ...]
    seeds: tuple[int, ...]
    """Seeds on which at least one level has completed."""
    completed: int
    planned: int
    missing: str
    """A note on what is missing, or why there is no confirmation; empty if it is complete."""
    used_before: tuple[int, ...] = ()
    """Seeds that the search had used as well, on which the tuned configuration is favoured."""

    @property
    def main(self) -> TunedComparison | None:
        """The comparison in the objective of a search with a single one."""
        return next((item for item in self.comparisons if not item.unseen), None)


def load_confirmation(search: SearchData) -> Confirmation:
    """The confirmation as far as its runs have completed."""
    if not search.confirm_sweep:
        return Confirmation(
            comparisons=(),
            seeds=(),
            completed=0,
            planned=0,
            missing="The confirmation on fresh seeds has not been started.",
        )
    document = read_document(search.folder.parent / search.confirm_sweep)
    cells = [cell for cell in document.get("cells") or () if _level(cell, search) is not None]
    if not cells:
        sentence = f"The confirmation {search.confirm_sweep} has no cells yet."
        return Confirmation(comparisons=(), seeds=(), completed=0, planned=0, missing=sentence)
    runs = {
        (str(_level(cell, search)), int(cell["seed"])): points
        for cell in cells
        if (points := run_points(search.folder.parent.parent / "runs" / str(cell["signature"]))) is not None
    }
    objectives = [(objective, False) for objective in search.objectives] + [
        (objective, True) for objective in unseen_objectives(search, runs)
    ]
    seeds = sorted({seed for _, seed in runs})
    searched = {int(seed) for seed in search.settings.get("seeds") or ()}
    searched |= {seed for trial in search.trials for seed in trial.seed_values}
    return Confirmation(
        comparisons=tuple(_comparisons(search, runs, objectives)),
        seeds=tuple(seeds),
        completed=len(runs),
        planned=len(cells),
        used_before=tuple(sorted(searched & {int(cell["seed"]) for cell in cells})),
        missing=_missing(search, len(cells), runs, objectives),
    )


def _missing(
    search: SearchData,
    planned: int,
    runs: Mapping[tuple[str, int], Any],
    objectives: Sequence[tuple[OptimizedMetric, bool]],
) -> str:
    """A note on runs that have not completed, and on suites without values."""
    sentences = []
    if absent := planned - len(runs):
        sentences.append(f"{absent} of {planned} runs of the confirmation have not completed.")
    measured = {_suite(objective.metric) for objective, unseen in objectives if unseen}
    suites = [str(name) for name in (search.settings.get("confirm") or {}).get("suites") or () if name not in measured]
    if runs and suites:
        sentences.append(f"The confirmation has no values on {', '.join(map(suite_name, suites))} problems.")
    return " ".join(sentences)


def _level(cell: Mapping[str, Any], search: SearchData) -> str | None:
    return next((str(cell.get(key)) for key in ("level", "label") if str(cell.get(key)) in search.confirm_levels), None)


def run_points(run_dir: Path) -> dict[str, list[float]] | None:
    """Every metric's recorded values in order of steps, NaN where not finite; None unless the run has completed.

    Of a step that was recorded twice the last record counts, as it does for the search's own values.
    """
    try:
        status = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
        lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if status.get("state") != "COMPLETED":
        return None
    points: dict[str, dict[int, float]] = {}
    for line in lines:
        if not line.endswith("\n"):  # cut off by a crash: the step it belongs to has no other trace either
            continue
        record = json.loads(line)
        for key, value in record["metrics"].items():
            points.setdefault(key, {})[record["step"]] = math.nan if value is None else float(value)
    return {key: [value for _, value in sorted(steps.items())] for key, steps in points.items()}


def value_of(points: Mapping[str, Sequence[float]], objective: OptimizedMetric) -> float:
    """Mean of the last ``objective.last`` values of the objective's metric; NaN if it was not logged."""
    tail = points.get(objective.metric, ())[-objective.last :]
    return float(np.mean(tail)) if tail else math.nan


def unseen_objectives(
    search: SearchData, runs: Mapping[tuple[str, int], Mapping[str, Sequence[float]]]
) -> list[OptimizedMetric]:
    """The objectives on suites that the search did not use; for a suite without them, avg@k and pass@k of largest k.

    These suites are ``confirm.suites`` of the search, else all that were evaluated and are in no objective.
    """
    logged = {key for points in runs.values() for key in points}
    searched = {_suite(objective.metric) for objective in search.objectives}
    candidates = (search.settings.get("confirm") or {}).get("suites") or [_suite(key) for key in sorted(logged)]
    objectives = []
    for suite in dict.fromkeys(str(name) for name in candidates if name and name not in searched):
        carried = [
            _objective(search, metric, objective.maximize, objective.last)
            for objective in search.objectives
            if _suite(objective.metric) and (metric := _moved(objective.metric, suite)) in logged
        ]
        objectives += carried or [_objective(search, key, True, 1) for key in _widest(logged, suite)]
    return objectives


def _widest(logged: set[str], suite: str) -> list[str]:
    of_suite = [item for item in evaluation_keys(logged) if item.suite == suite]
    return [key for kind in ("avg", "pass") for key in [item.key for item in of_suite if item.kind == kind][-1:]]


def _objective(search: SearchData, metric: str, maximize: bool, last: int) -> OptimizedMetric:
    known = search.glossary.describe(metric)
    return OptimizedMetric(metric=metric, maximize=maximize, label=known.label, last=last, unit=known.unit)


def _suite(metric: str) -> str | None:
    """``heldout`` of ``eval/heldout/avg_at_16``; None for a training metric."""
    parts = metric.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "eval" else None


def _moved(metric: str, suite: str) -> str:
    return "/".join(["eval", suite, *metric.split("/")[2:]])


def _comparisons(
    search: SearchData,
    runs: Mapping[tuple[str, int], Mapping[str, Sequence[float]]],
    objectives: Sequence[tuple[OptimizedMetric, bool]],
) -> list[TunedComparison]:
    untuned = next((level for level, number in search.confirm_levels.items() if number is None), None)
    seeds = sorted({seed for _, seed in runs})
    comparisons = []
    for level, trial in tuned_trials(search).items():
        for position, (objective, unseen) in enumerate(objectives):
            tuned_values, untuned_values = (_column(runs, name, seeds, objective) for name in (level, untuned))
            bounds = search.glossary.describe(objective.metric).range
            tuned = bounded_interval(tuned_values, bounds)
            reported = math.nan if unseen or not trial.values else trial.values[position]
            comparisons.append(
                TunedComparison(
                    level=level,
                    trial=trial.number,
                    objective=objective,
                    unseen=unseen,
                    tuned=tuned,
                    untuned=bounded_interval(untuned_values, bounds),
                    effect=paired_effect(tuned_values, untuned_values, bounds),
                    reported=reported,
                    selection_bias=minus(reported, tuned),
                )
            )
    return comparisons


def _column(
    runs: Mapping[tuple[str, int], Mapping[str, Sequence[float]]],
    level: str | None,
    seeds: Sequence[int],
    objective: OptimizedMetric,
) -> list[float]:
    return [value_of(runs.get((str(level), seed), {}), objective) for seed in seeds]


def minus(number: float, interval: Interval) -> Interval:
    """The interval of ``number`` minus the estimated quantity."""
    return Interval(
        mean=number - interval.mean, low=number - interval.high, high=number - interval.low, count=interval.count
    )
