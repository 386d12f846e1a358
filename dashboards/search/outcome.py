"""Results of a search: best trials, best value over time, steps saved by pruning, importances of parameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from dashboards.search.load import MAX_FRONT_MEMBERS, PRUNED, SearchData, TrialRecord

MIN_TRIALS_FOR_IMPORTANCE = 4
"""Completed trials that are needed for importances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Training steps and seconds that pruning saved."""

    pruned: int
    steps: int
    """Sum over pruned trials of (steps planned - steps run)."""
    planned: int
    """Steps planned in all trials that ended."""
    seconds: float
    """Sum over pruned trials of (steps planned - steps run) x seconds a step; NaN where no trial has a time."""
    busy: float
    """Seconds that all trials took."""

    @property
    def fraction(self) -> float:
        """Share of the planned steps that was not run; NaN without planned steps."""
        return self.steps / self.planned if self.planned else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Importance of one parameter for one objective."""

    parameter: str
    share: float
    """0 to 1; the shares of the parameters evaluated together add up to 1."""


def front(search: SearchData) -> tuple[TrialRecord, ...]:
    """The best completed trial of a single objective; of several objectives the Pareto front (trials not dominated)."""
    scored = [(trial, _oriented(search, trial)) for trial in search.complete if _is_scored(trial)]
    if search.single:
        return (max(scored, key=lambda pair: pair[1])[0],) if scored else ()
    members = [trial for trial, values in scored if not any(_dominates(other, values) for _, other in scored)]
    return tuple(sorted(members, key=lambda trial: (-_oriented(search, trial)[0], trial.number)))


def tuned_trials(search: SearchData) -> dict[str, TrialRecord]:
    """The trials that are the result of the search, by the name of their level in the confirmation.

    These are the confirmed trials; without a confirmation the best as ``tuned``, or up to four trials of the front as
    ``tuned-1``, ...
    """
    by_level = {level: search.trial(number) for level, number in search.confirm_levels.items() if number is not None}
    if chosen := {level: trial for level, trial in by_level.items() if trial is not None}:
        return chosen
    best = front(search)[:MAX_FRONT_MEMBERS]
    return {"tuned" if search.single else f"tuned-{rank}": trial for rank, trial in enumerate(best, start=1)}


def best_so_far(search: SearchData, position: int = 0) -> list[tuple[int, float]]:
    """(trial number, best value of the objective at ``position`` among completed trials up to it)."""
    sign, best, points = search.objectives[position].sign, -math.inf, []
    for trial in search.complete:
        if _is_scored(trial):
            best = max(best, sign * trial.values[position])
            points.append((trial.number, sign * best))
    return points


def saving(search: SearchData) -> Saving:
    """Steps and seconds not taken by pruned trials, at the trial's own speed or, without one, at the mean speed."""
    ended = [trial for trial in search.trials if trial.ended is not None]
    pruned = [trial for trial in ended if trial.state == PRUNED]
    timed = [trial for trial in ended if _pace(trial) is not None]
    overall = sum(trial.seconds for trial in timed) / sum(trial.steps_run for trial in timed) if timed else math.nan
    left = [(trial, max(0, trial.steps_planned - trial.steps_run)) for trial in pruned]
    return Saving(
        pruned=len(pruned),
        steps=sum(steps for _, steps in left),
        planned=sum(trial.steps_planned for trial in ended),
        seconds=sum(steps * (overall if (pace := _pace(trial)) is None else pace) for trial, steps in left),
        busy=sum(trial.seconds for trial in search.trials),
    )


def _pace(trial: TrialRecord) -> float | None:
    """Seconds per step of a trial; None if it made no step or reused runs of other trials."""
    timed = trial.seconds > 0 and trial.steps_run > 0 and trial.reused == 0
    return trial.seconds / trial.steps_run if timed else None


def parameters(search: SearchData) -> list[str]:
    """Every parameter that a trial has, in the order of the space, then of appearance."""
    used = dict.fromkeys(key for trial in search.trials for key in trial.params)
    space = [str(key) for key in search.settings.get("space") or {} if key in used]
    return list(dict.fromkeys([*space, *used]))


def importances(search: SearchData, position: int = 0) -> tuple[list[Importance], str]:
    """Importances for one objective, largest first, by Optuna's default evaluator; or none, and why.

    The evaluator is PED-ANOVA (arXiv 2304.10255), in its conditional form (2601.20800) for parameters that only some
    trials have.
    """
    scored = [trial for trial in search.complete if _is_scored(trial)]
    if len(scored) < MIN_TRIALS_FOR_IMPORTANCE:
        return [], f"{len(scored)} completed trials: importances need at least {MIN_TRIALS_FOR_IMPORTANCE}."
    if len({trial.values[position] for trial in scored}) == 1:
        return [], "All completed trials have the same value: no parameter mattered."
    varied = [key for key in parameters(search) if len({t.params[key] for t in scored if key in t.params}) > 1]
    if len(varied) < 2:
        return [], "Fewer than two parameters vary among the completed trials: there is nothing to compare."
    numbers = {trial.number for trial in scored}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few trials: the page says how many there are
            shares = optuna.importance.get_param_importances(single_study(search, position, numbers))
    except (ValueError, RuntimeError) as error:
        return [], f"Optuna gives no importances for these trials: {error}."
    if not all(math.isfinite(share) for share in shares.values()) or not any(shares.values()):
        return [], "Optuna finds no parameter that matters in these trials."
    ordered = sorted(shares, key=lambda key: (-shares[key], key))  # Optuna leaves the order of ties open
    return [Importance(parameter=key, share=float(shares[key])) for key in ordered], ""


def single_study(search: SearchData, position: int, numbers: set[int]) -> optuna.Study:
    """An in-memory study of one objective with the completed trials of those numbers, for Optuna's own functions."""
    study = optuna.create_study(direction="maximize" if search.objectives[position].maximize else "minimize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=trial.params, distributions=trial.distributions, value=trial.values[position]
            )
            for trial in search.frozen
            if trial.number in numbers
        ]
    )
    return study


def _is_scored(trial: TrialRecord) -> bool:
    return bool(trial.values) and all(math.isfinite(value) for value in trial.values)


def _oriented(search: SearchData, trial: TrialRecord) -> tuple[float, ...]:
    """Values with their sign changed where smaller is better."""
    return tuple(objective.sign * value for objective, value in zip(search.objectives, trial.values, strict=True))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(left >= right for left, right in zip(one, other, strict=True))
