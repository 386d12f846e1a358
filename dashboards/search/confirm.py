"""The confirmation: the winners against the untuned default on fresh seeds, and what their reported value was worth.

It reads the record of the runs (``metrics.jsonl``), which is where the search's values come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dashboards.search.load import Objective, Search, read_document
from dashboards.search.outcome import winners
from dashboards.statistics.intervals import Interval, PairedEffect, bounded_interval, paired_effect
from dashboards.study.names import evaluation_keys, suite_name
from dashboards.study.verdict import FEWEST_SEEDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One winner against the untuned default in one metric, on the fresh seeds that both have."""

    level: str
    trial: int
    goal: Objective
    unseen: bool
    """The metric belongs to a suite that the search never looked at."""
    tuned: Interval
    untuned: Interval
    effect: PairedEffect
    """Tuned minus untuned."""
    reported: float
    """The value the search reported for the winner; NaN for a metric it did not look at."""
    curse: Interval
    """Reported minus confirmed value; its interval is that of the confirmed mean, the reported value being a given."""

    @property
    def better(self) -> bool | None:
        """Whether the tuned one is better; None where the 95 % interval holds zero, or below three seeds."""
        if self.effect.difference.count < FEWEST_SEEDS:
            return None
        low, high = sorted((self.goal.sign * self.effect.difference.low, self.goal.sign * self.effect.difference.high))
        return True if low > 0 else False if high < 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What the fresh seeds say."""

    comparisons: tuple[Comparison, ...]
    seeds: tuple[int, ...]
    """Seeds on which at least one level has completed."""
    completed: int
    planned: int
    missing: str
    """What is not there yet, or why there is no confirmation; empty when it is whole."""
    used_before: tuple[int, ...] = ()
    """Seeds that the search had used: they are not fresh, and flatter the winner."""

    @property
    def main(self) -> Comparison | None:
        """The comparison a single-objective search is judged by."""
        return next((item for item in self.comparisons if not item.unseen), None)


def load_confirmation(search: Search) -> Confirmation:
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
    goals = [(goal, False) for goal in search.objectives] + [(goal, True) for goal in unseen_goals(search, runs)]
    seeds = sorted({seed for _, seed in runs})
    searched = {int(seed) for seed in search.settings.get("seeds") or ()}
    searched |= {seed for trial in search.trials for seed in trial.seed_values}
    return Confirmation(
        comparisons=tuple(_comparisons(search, runs, goals)),
        seeds=tuple(seeds),
        completed=len(runs),
        planned=len(cells),
        used_before=tuple(sorted(searched & {int(cell["seed"]) for cell in cells})),
        missing=_missing(search, len(cells), runs, goals),
    )


def _missing(
    search: Search, planned: int, runs: Mapping[tuple[str, int], Any], goals: Sequence[tuple[Objective, bool]]
) -> str:
    """Runs that have not completed, and suites that were to be looked at and were not."""
    sentences = []
    if absent := planned - len(runs):
        sentences.append(f"{absent} of {planned} runs of the confirmation have not completed.")
    found = {_suite(goal.metric) for goal, unseen in goals if unseen}
    suites = [str(name) for name in (search.settings.get("confirm") or {}).get("suites") or () if name not in found]
    if runs and suites:
        sentences.append(f"The confirmation has no values on {', '.join(map(suite_name, suites))} problems.")
    return " ".join(sentences)


def _level(cell: Mapping[str, Any], search: Search) -> str | None:
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


def value_of(points: Mapping[str, Sequence[float]], goal: Objective) -> float:
    """Mean of the last ``goal.last`` recorded values of the goal's metric; NaN where it was not recorded."""
    tail = points.get(goal.metric, ())[-goal.last :]
    return float(np.mean(tail)) if tail else math.nan


def unseen_goals(search: Search, runs: Mapping[tuple[str, int], Mapping[str, Sequence[float]]]) -> list[Objective]:
    """The objectives on the suites the search never looked at; where none carries over, the widest avg@k and pass@k.

    Which suites: ``confirm.suites`` of the search, else all that were evaluated and are in no objective.
    """
    logged = {key for points in runs.values() for key in points}
    seen = {_suite(goal.metric) for goal in search.objectives}
    named = (search.settings.get("confirm") or {}).get("suites") or [_suite(key) for key in sorted(logged)]
    goals = []
    for suite in dict.fromkeys(str(name) for name in named if name and name not in seen):
        carried = [
            _goal(search, metric, goal.maximize, goal.last)
            for goal in search.objectives
            if _suite(goal.metric) and (metric := _moved(goal.metric, suite)) in logged
        ]
        goals += carried or [_goal(search, key, True, 1) for key in _widest(logged, suite)]
    return goals


def _widest(logged: set[str], suite: str) -> list[str]:
    of_suite = [item for item in evaluation_keys(logged) if item.suite == suite]
    return [key for kind in ("avg", "pass") for key in [item.key for item in of_suite if item.kind == kind][-1:]]


def _goal(search: Search, metric: str, maximize: bool, last: int) -> Objective:
    known = search.glossary.describe(metric)
    return Objective(metric=metric, maximize=maximize, label=known.label, last=last, unit=known.unit)


def _suite(metric: str) -> str | None:
    """``heldout`` of ``eval/heldout/avg_at_16``; None for a metric of the training itself."""
    parts = metric.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "eval" else None


def _moved(metric: str, suite: str) -> str:
    return "/".join(["eval", suite, *metric.split("/")[2:]])


def _comparisons(
    search: Search,
    runs: Mapping[tuple[str, int], Mapping[str, Sequence[float]]],
    goals: Sequence[tuple[Objective, bool]],
) -> list[Comparison]:
    untuned = next((level for level, number in search.confirm_levels.items() if number is None), None)
    seeds = sorted({seed for _, seed in runs})
    found = []
    for level, trial in winners(search).items():
        for position, (goal, unseen) in enumerate(goals):
            own, default = (_column(runs, name, seeds, goal) for name in (level, untuned))
            bounds = search.glossary.describe(goal.metric).range
            tuned = bounded_interval(own, bounds)
            reported = math.nan if unseen or not trial.values else trial.values[position]
            found.append(
                Comparison(
                    level=level,
                    trial=trial.number,
                    goal=goal,
                    unseen=unseen,
                    tuned=tuned,
                    untuned=bounded_interval(default, bounds),
                    effect=paired_effect(own, default, bounds),
                    reported=reported,
                    curse=minus(reported, tuned),
                )
            )
    return found


def _column(
    runs: Mapping[tuple[str, int], Mapping[str, Sequence[float]]],
    level: str | None,
    seeds: Sequence[int],
    goal: Objective,
) -> list[float]:
    return [value_of(runs.get((str(level), seed), {}), goal) for seed in seeds]


def minus(number: float, interval: Interval) -> Interval:
    """``number`` minus what the interval is about."""
    return Interval(
        mean=number - interval.mean, low=number - interval.high, high=number - interval.low, count=interval.count
    )
