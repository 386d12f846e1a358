"""The final answer: the best of a search against the untuned default, on fresh seeds and a suite it never saw.

Called at the end of a search. What a search reports of its winner is too good, because it is the largest of many noisy
numbers; here the same configurations are trained again as an ordinary sweep, through the ordinary queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from sweeps.grid.cells import Cell
from sweeps.grid.levels import Level
from sweeps.grid.sweep import Study
from sweeps.launch import Request, run_study
from sweeps.search.context import SearchContext
from sweeps.search.progress import best
from sweeps.search.settings import Settings, suites_of
from sweeps.search.space import overrides

MOST = 4
"""Members of a Pareto front that are trained again, or become presets when none was."""


def confirm(context: SearchContext, study: optuna.Study) -> int | None:
    """Train winners and default on fresh seeds; the exit code of that sweep, None where there is nothing to compare."""
    chosen = winners(study, context.settings)
    if not chosen or not context.settings.search.confirm_seeds:
        return None
    levels: dict[str, FrozenTrial | None] = {"untuned": None}
    levels |= {f"tuned-{i}" if len(chosen) > 1 else "tuned": trial for i, trial in enumerate(chosen, start=1)}
    name = f"{context.name}-confirm"
    study.set_user_attr("confirm_sweep", name)
    study.set_user_attr("confirm_levels", {level: trial and trial.number for level, trial in levels.items()})
    made = [
        cell
        for index, (level, trial) in enumerate(levels.items())
        for cell in _runs(context, _texts(context, trial), Level(name=level, label=_label(level, trial), index=index))
    ]
    sweep = Study(name=name, command=context.command, output=context.output, cells=tuple(made))
    print(f"\n{name}: {len(levels)} configurations on seeds that the search has not seen", flush=True)
    return run_study(sweep, Request(multirun=True, retry="failed"))


def confirmation_probe(context: SearchContext) -> list[Cell]:
    """One cell of the comparison, so that its settings are checked before the search and not after it."""
    if not context.settings.search.confirm_seeds:
        return []
    at = Level(name="confirm", label="the comparison at the end", index=0)
    texts = [*context.settings.search.baseline, *_examination(context)]
    return list(context.cells(texts, context.settings.search.confirm_seeds[:1], at))


def winners(study: optuna.Study, settings: Settings) -> list[FrozenTrial]:
    """The best trial; of several objectives up to four of the front: the best in each, then the earliest."""
    found = best(study)
    if len(found) <= 1:
        return found
    ends = [
        max(found, key=lambda trial, i=i, sign=objective.sign: sign * trial.values[i])  # type: ignore[misc]
        for i, objective in enumerate(settings.objectives)
    ]
    unique = {trial.number: trial for trial in [*ends, *found]}
    return list(unique.values())[:MOST]


def _texts(context: SearchContext, trial: FrozenTrial | None) -> Sequence[str]:
    return context.settings.search.baseline if trial is None else overrides(trial.params)


def _label(level: str, trial: FrozenTrial | None) -> str:
    return level if trial is None else f"{level} (trial {trial.number})"


def _runs(context: SearchContext, texts: Sequence[str], level: Level) -> list[Cell]:
    factor = _factor(context)
    made = context.runs([*texts, *_examination(context)], context.settings.search.confirm_seeds, level)
    return [replace(cell, config={**cell.config, "factor": factor}) for cell in made]


def _examination(context: SearchContext) -> list[str]:
    """How these runs are examined: the suites of the search and the unseen ones, on another RNG stream."""
    search, evaluation = context.settings.search, context.config["evaluation"]
    if not evaluation["every"]:
        return []
    looked_at = [*evaluation["suites"], *suites_of(context.settings.objectives)]
    every = list(dict.fromkeys([*looked_at, *search.confirm_suites]))
    # No suites at all means every suite of the task.
    chosen = [f"evaluation.suites=[{','.join(every)}]"] if evaluation["suites"] else []
    return [*chosen, f"evaluation.seed={search.confirm_noise}"]


def _factor(context: SearchContext) -> dict[str, Any]:
    """So that the report of the comparison speaks of tuned and untuned, and judges the claim that tuning helped."""
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
