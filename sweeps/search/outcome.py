"""The end of a search: MLflow brought up to date, the best confirmed, preset and report written."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna
from optuna.trial import TrialState

from sweeps.after.finish import not_mirrored
from sweeps.after.manage import reopened, sync
from sweeps.after.results import show_search
from sweeps.compose.compose import CONF
from sweeps.grid import sweep as studies
from sweeps.launch import come_back
from sweeps.search.confirm import confirm
from sweeps.search.context import SearchContext
from sweeps.search.driver import Driver
from sweeps.search.overview import dashboard_line
from sweeps.search.preset import write_preset
from sweeps.search.progress import best, counted, numbers
from sweeps.search.space import overrides
from sweeps.tracking import Tracker
from trainer.contract.status import ExitCode


def finish(
    context: SearchContext, study: optuna.Study, driver: Driver, tracker: Tracker | None, parent: str | None
) -> int:
    """Everything after the last trial; the exit code: 0, 1 if trials failed for good, 130 if it was cancelled."""
    if tracker is not None:
        _bring_up_to_date(context, tracker, driver.late)
    print(summary(study), flush=True)
    if driver.cancelled or driver.gave_up:
        return _broken_off(context, driver, tracker, parent)
    code = confirm(context, study) or 0
    for path in _preset(context, study):
        print(f"preset     {path}")
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "COMPLETED" if code == 0 else "FAILED")
    show_search(context.study, tracker.uri if tracker is not None else None)
    print(f"look       {dashboard_line(context)}")
    return code


def _broken_off(context: SearchContext, driver: Driver, tracker: Tracker | None, parent: str | None) -> int:
    if tracker is not None and parent is not None:
        tracker.close_sweep(parent, "STOPPED" if driver.cancelled else "FAILED")
    if driver.cancelled:
        print(f"cancelled\n{come_back(context.study)}")
        return ExitCode.INTERRUPTED
    number = context.settings.search.max_failed
    print(
        f"error: {number} trials failed one after another, so no further one was asked for: mend what they say above, "
        "then start the same search again",
        file=sys.stderr,
    )
    return 1


def _bring_up_to_date(context: SearchContext, tracker: Tracker, late: list[Path]) -> None:
    document = studies.load(context.output, context.name)
    if not document["cells"]:
        return
    reached = reopened(context.output, document)
    behind = list(dict.fromkeys([*late, *not_mirrored(reached)]))
    if behind:
        sync(behind, context.config["launcher"]["trainer"])


def summary(study: optuna.Study) -> str:
    """How trials ended, and the best of them as overrides."""
    count = counted(study)
    lines = [
        f"{count.total()} trials: {count[TrialState.COMPLETE]} complete, {count[TrialState.PRUNED]} pruned, "
        f"{count[TrialState.FAIL]} failed"
    ]
    for trial in best(study)[:6]:
        lines.append(f"best       {numbers(trial.values)} (trial {trial.number}): {' '.join(overrides(trial.params))}")
    return "\n".join(lines)


def _preset(context: SearchContext, study: optuna.Study) -> list[Path]:
    """The best configuration as a preset of ``method``; nothing where no trial is complete."""
    if not best(study):
        return []
    return write_preset(study, context.folder, CONF if context.settings.search.preset else None)
