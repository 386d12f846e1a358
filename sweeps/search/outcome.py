"""The end of a search: brings MLflow up to date, confirms the best trials, writes preset and report."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna
from optuna.trial import TrialState

from sweeps.after.finish import not_mirrored
from sweeps.after.manage import load_sweep, sync
from sweeps.after.results import show_search
from sweeps.compose.compose import CONF
from sweeps.grid.sweep import load_document
from sweeps.launch import follow_up_commands
from sweeps.search.confirm import confirm
from sweeps.search.context import SearchContext
from sweeps.search.driver import Driver
from sweeps.search.overview import dashboard_line
from sweeps.search.preset import write_preset
from sweeps.search.progress import best_trials, counted, numbers
from sweeps.search.space import overrides
from sweeps.tracking import Tracker
from trainer.contract.status import ExitCode


def finish(
    context: SearchContext, study: optuna.Study, driver: Driver, tracker: Tracker | None, parent: str | None
) -> int:
    """Everything after the last trial; the exit code: 0, 1 if too many trials failed, 130 if it was cancelled."""
    if tracker is not None:
        _bring_up_to_date(context, tracker, driver.adopted)
    print(summary(study), flush=True)
    if driver.cancelled or driver.gave_up:
        return _broken_off(context, driver, tracker, parent)
    code = confirm(context, study) or 0
    for path in _preset(context, study):
        print(f"preset     {path}")
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "COMPLETED" if code == 0 else "FAILED")
    show_search(context.sweep, tracker.uri if tracker is not None else None)
    print(f"look       {dashboard_line(context)}")
    return code


def _broken_off(context: SearchContext, driver: Driver, tracker: Tracker | None, parent: str | None) -> int:
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "STOPPED" if driver.cancelled else "FAILED")
    if driver.cancelled:
        print(f"cancelled\n{follow_up_commands(context.sweep)}")
        return ExitCode.INTERRUPTED
    number = context.settings.search.max_failed
    print(
        f"error: {number} trials failed one after another, so no further one was asked for: mend what they say above, "
        "then start the same search again",
        file=sys.stderr,
    )
    return 1


def _bring_up_to_date(context: SearchContext, tracker: Tracker, adopted: list[Path]) -> None:
    document = load_document(context.output, context.name)
    if not document["cells"]:
        return
    reached = load_sweep(context.output, document)
    behind = list(dict.fromkeys([*adopted, *not_mirrored(reached)]))
    if behind:
        sync(behind, context.config["launcher"]["trainer"])


def summary(study: optuna.Study) -> str:
    """The numbers of trials by state, and the best as overrides."""
    count = counted(study)
    lines = [
        f"{count.total()} trials: {count[TrialState.COMPLETE]} complete, {count[TrialState.PRUNED]} pruned, "
        f"{count[TrialState.FAIL]} failed"
    ]
    for trial in best_trials(study)[:6]:
        lines.append(f"best       {numbers(trial.values)} (trial {trial.number}): {' '.join(overrides(trial.params))}")
    return "\n".join(lines)


def _preset(context: SearchContext, study: optuna.Study) -> list[Path]:
    """Write the best configurations as presets of ``method``; nothing if no trial is complete."""
    if not best_trials(study):
        return []
    return write_preset(study, context.folder, CONF if context.settings.search.preset else None)
