"""Texts shown before a search starts: the plan, the first lines, the estimated time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

import optuna
from optuna.trial import TrialState

from sweeps.compose.overrides import value_text
from sweeps.grid.cells import Cell
from sweeps.grid.levels import Level
from sweeps.plan.estimate import estimate
from sweeps.plan.plan import aligned, duration
from sweeps.plan.reconcile import Action, Decision
from sweeps.plan.schema import outdated_line
from sweeps.search.context import SearchContext
from sweeps.search.progress import best_text
from sweeps.search.space import Parameter
from trainer.contract.settings import ConfigError


def remaining(context: SearchContext, study: optuna.Study | None) -> int:
    """Number of trials that have not ended or not begun."""
    trials = study.get_trials(deepcopy=False) if study is not None else []
    over = sum(trial.state.is_finished() for trial in trials)
    return max(0, context.settings.search.n_trials - over)


def expected_runs(context: SearchContext, trials: int) -> float:
    """Runs that this many trials need if each rung promotes one in ``reduction`` and nothing is pruned."""
    search, runs, before, share = context.settings.search, 0.0, 0, 1.0
    for rung in search.rungs:
        runs += trials * share * (rung - before)
        before, share = rung, share / search.reduction
    return runs


def expected_s(context: SearchContext, study: optuna.Study | None) -> float | None:
    """GPU seconds (job seconds on a CPU) of the remaining trials, from earlier runs; None without such runs.

    Includes the confirmation; ignores what pruning saves.
    """
    trials = remaining(context, study)
    cell = Cell(config=context.config, signature="", level=Level(name="", label="", index=0), seed=0, overrides=())
    alone = replace(context.sweep, cells=(cell,))
    one = estimate(alone, [Decision(run_dir=context.run_dir(cell), action=Action.START, status=None)], context.queue)
    confirming = 2 * len(context.settings.search.confirm_seeds) if trials else 0
    return one.device_s * (expected_runs(context, trials) + confirming) if one is not None else None


def require_affordable(context: SearchContext, expected: float | None, max_hours: float) -> None:
    """Raise :class:`ConfigError` when the search is expected to take more than ``max_hours`` of jobs."""
    if expected is not None and expected > 3600 * max_hours:
        things = "GPUs" if context.queue.num_gpus else "jobs"
        raise ConfigError(
            f"this search would take about {duration(expected)} of {things}, going by earlier runs, more than "
            f"max_hours={max_hours:g}: say that you mean it (yes=true), or raise max_hours"
        )


def opening_lines(context: SearchContext, study: optuna.Study, expected: float | None) -> str:
    """The lines a search begins with."""
    settings, known = context.settings, study.get_trials(deepcopy=False)
    goals = " and ".join(f"{o.direction} {o.metric}" for o in settings.objectives)
    over = sum(trial.state.is_finished() for trial in known)
    left = sum(trial.state == TrialState.RUNNING for trial in known)
    before = f"; {over} trials have ended, {left} were left open" if known else ""
    return (
        f"{context.name}: {goals} over {len(settings.space)} parameters, {settings.search.n_trials} trials{before}"
        f"{_time(context, expected)}, {context.queue.concurrency} at a time\n"
        f"to look inside: {dashboard_line(context)}"
    ) + (f"\n{old}" if (old := outdated_line(context.output)) else "")


def dashboard_line(context: SearchContext) -> str:
    """The command that starts Optuna's dashboard, which is not installed with this project."""
    return shlex.join(["optuna-dashboard", context.storage])


def plan_text(context: SearchContext, study: optuna.Study | None, expected: float | None) -> str:
    """The text of ``plan=true``: search space, settings, trials that have ended, estimated time of the rest."""
    settings, search = context.settings, context.settings.search
    trials = study.get_trials(deepcopy=False) if study is not None else []
    rows = [("parameter", "range", "only with"), *map(_row, settings.space)]
    over = sum(trial.state.is_finished() for trial in trials)
    pruner = "none (several objectives)" if settings.several else search.pruner
    lines = [
        *aligned(rows),
        "",
        *[f"objective  {o.direction} {o.metric}" for o in settings.objectives],
        f"sampler    {search.sampler}; pruner {pruner}; stops below {search.collapse:g} and above "
        f"{search.explosion:g} times the first entropy",
        f"seeds      {_list(search.seeds)}; rungs of {_list(search.rungs)}",
        f"untuned    {' '.join([*context.tuned({}), *search.baseline]) or 'the default configuration'}",
        f"at the end the best against the untuned default on fresh seeds {_list(search.confirm_seeds) or 'none'}, "
        f"suites {_list(search.confirm_suites) or 'none'}",
        "",
        f"{context.name}: {over} of {search.n_trials} trials have ended"
        + (f", {best_text(study)}" if study is not None and best_text(study) else ""),
        f"estimated time: {_time(context, expected).lstrip(', ') or 'no earlier run to estimate from'}",
        *filter(None, [outdated_line(context.output)]),
    ]
    return "\n".join(lines)


def _time(context: SearchContext, expected: float | None) -> str:
    if expected is None:
        return ""
    at_once = context.queue.concurrency * max(1, context.queue.num_gpus)
    return f", about {duration(expected / at_once)} without pruning"


def _row(parameter: Parameter) -> tuple[str, str, str]:
    when = ", ".join(f"{key}={_list(values)}" for key, values in parameter.when.items())
    if parameter.choices:
        return parameter.key, ", ".join(map(value_text, parameter.choices)), when
    step = f", steps of {parameter.step:g}" if parameter.step is not None else ""
    return parameter.key, f"{parameter.low:g} to {parameter.high:g}{', log' if parameter.log else ''}{step}", when


def _list(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
