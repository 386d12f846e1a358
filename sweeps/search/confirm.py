"""Confirmation of a search: trains the best configurations and the untuned default on fresh seeds and unseen suites.

The objective that a search reports for its best trial is biased upwards, because it is the maximum of many noisy
values. So at the end of a search the configurations are trained again, as an ordinary sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from sweeps.grid.cells import Cell
from sweeps.grid.levels import Level
from sweeps.grid.sweep import Sweep
from sweeps.launch import Request, run_sweep
from sweeps.search.context import SearchContext
from sweeps.search.progress import best_trials
from sweeps.search.settings import Settings, suites_of
from sweeps.search.space import overrides

MAX_FRONT_MEMBERS = 4
"""Most trials of a Pareto front that are confirmed, or written as presets without a confirmation."""


def confirm(context: SearchContext, study: optuna.Study) -> int | None:
    """Train the best trials and the default on fresh seeds; the exit code of that sweep, None without any trial."""
    chosen = confirmation_candidates(study, context.settings)
    if not chosen or not context.settings.search.confirm_seeds:
        return None
    levels: dict[str, FrozenTrial | None] = {"untuned": None}
    levels |= {f"tuned-{i}" if len(chosen) > 1 else "tuned": trial for i, trial in enumerate(chosen, start=1)}
    name = f"{context.name}-confirm"
    study.set_user_attr("confirm_sweep", name)
    study.set_user_attr("confirm_levels", {level: trial and trial.number for level, trial in levels.items()})
    cells = [
        cell
        for index, (level, trial) in enumerate(levels.items())
        for cell in _runs(context, _texts(context, trial), Level(name=level, label=_label(level, trial), index=index))
    ]
    sweep = Sweep(name=name, command=context.command, output=context.output, cells=tuple(cells))
    print(f"\n{name}: {len(levels)} configurations on seeds that the search has not seen", flush=True)
    return run_sweep(sweep, Request(multirun=True, retry="failed"))


def confirmation_check_cell(context: SearchContext) -> list[Cell]:
    """One cell of the confirmation, whose settings are checked before the search and not after it."""
    if not context.settings.search.confirm_seeds:
        return []
    at = Level(name="confirm", label="the comparison at the end", index=0)
    texts = [*context.settings.search.baseline, *_evaluation_overrides(context)]
    return list(context.cells(texts, context.settings.search.confirm_seeds[:1], at))


def confirmation_candidates(study: optuna.Study, settings: Settings) -> list[FrozenTrial]:
    """The trials to confirm: the best; of a Pareto front up to four, the best in each objective, then the earliest."""
    best = best_trials(study)
    if len(best) <= 1:
        return best
    extremes = [
        max(best, key=lambda trial, i=i, sign=objective.sign: sign * trial.values[i])  # type: ignore[misc]
        for i, objective in enumerate(settings.objectives)
    ]
    unique = {trial.number: trial for trial in [*extremes, *best]}
    return list(unique.values())[:MAX_FRONT_MEMBERS]


def _texts(context: SearchContext, trial: FrozenTrial | None) -> Sequence[str]:
    return context.settings.search.baseline if trial is None else overrides(trial.params)


def _label(level: str, trial: FrozenTrial | None) -> str:
    return level if trial is None else f"{level} (trial {trial.number})"


def _runs(context: SearchContext, texts: Sequence[str], level: Level) -> list[Cell]:
    factor = _factor(context)
    cells = context.runs([*texts, *_evaluation_overrides(context)], context.settings.search.confirm_seeds, level)
    return [replace(cell, config={**cell.config, "factor": factor}) for cell in cells]


def _evaluation_overrides(context: SearchContext) -> list[str]:
    """Evaluation of the confirmation runs: the suites of the search and the unseen ones, with another RNG stream."""
    search, evaluation = context.settings.search, context.config["evaluation"]
    if not evaluation["every"]:
        return []
    known_suites = [*evaluation["suites"], *suites_of(context.settings.objectives)]
    suites = list(dict.fromkeys([*known_suites, *search.confirm_suites]))
    # No suites at all means every suite of the task.
    chosen = [f"evaluation.suites=[{','.join(suites)}]"] if evaluation["suites"] else []
    return [*chosen, f"evaluation.seed={search.confirm_noise}"]


def _factor(context: SearchContext) -> dict[str, Any]:
    """A factor for ``run.yaml``, so that the report tests the hypothesis that the tuned configuration is better."""
    objective = context.settings.objectives[0]
    return {
        "name": f"{context.name}-confirm",
        "key": "search",
        "label": "Configuration",
        "unit": "",
        "ordered": False,
        "held": [],
        "hypothesis": {
            "metric": objective.metric,
            "direction": "increase" if objective.sign > 0 else "decrease",
            "statement": f"What {context.name} found is better than the untuned default on seeds it has not seen.",
            "source": context.command,
        },
    }
