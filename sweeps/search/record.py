"""Records trials for reports: user attributes of the Optuna study, and the ``sweep.json`` of the search.

After a restart the driver needs none of it except the rung of a trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from sweeps.grid.cells import Cell
from sweeps.grid.sweep import save_document
from sweeps.plan.estimate import time_in_steps_s, timings
from sweeps.search.context import SearchContext, level
from sweeps.search.space import Value
from trainer.contract.status import read_object, read_status


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """Training steps and seconds that the runs of a trial took."""

    steps: int
    """Training steps done."""
    seconds: float
    """Seconds within steps and evaluations."""


def trial_cost(run_dirs: Sequence[Path]) -> TrialCost:
    """Steps and seconds that these runs took."""
    statuses = [read_status(run_dir) for run_dir in run_dirs]
    return TrialCost(
        steps=sum(status.step for status in statuses if status is not None),
        seconds=sum(time_in_steps_s(timings(run_dir / "timings.jsonl")) for run_dir in run_dirs),
    )


class TrialRecorder:
    """Keeps user attributes and ``sweep.json`` up to date."""

    def __init__(self, context: SearchContext, study: optuna.Study) -> None:
        self._context, self._study = context, study

    def begun(self, trial: optuna.Trial, values: Mapping[str, Value], cells: Sequence[Cell], rung: int) -> None:
        """Record the overrides and runs of a trial that begins or resumes a rung."""
        known = {cell["run"]: cell for cell in trial.user_attrs.get("cells", [])}
        listed = [known.get(cell.signature) or self._new(cell, rung) for cell in cells]
        attributes = {
            "overrides": self._context.tuned(values),
            "cells": listed,
            "reused": sum(cell["reused"] for cell in listed),
            "steps_planned": self._context.steps * self._context.num_seeds,
        }
        for key, value in attributes.items():
            if trial.user_attrs.get(key) != value:
                trial.set_user_attr(key, value)

    def _new(self, cell: Cell, rung: int) -> dict[str, Any]:
        status = read_status(self._context.run_dir(cell))
        completed = status is not None and status.state == "COMPLETED"
        return {"seed": cell.seed, "rung": rung, "run": cell.signature, "reused": completed}

    def ended(self, trial: optuna.Trial, reason: str, cost: TrialCost) -> None:
        """Record why a trial ended, and its cost."""
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("steps_run", cost.steps)
        trial.set_user_attr("seconds", round(cost.seconds, 3))

    def save(self) -> None:
        """Write ``sweep.json``, from which ``python -m sweeps`` knows the runs of the search."""
        path = self._context.folder / "sweep.json"
        before = read_object(path, "it is written anew") or {}
        save_document(self._context.folder, before | document(self._context, self._study))


def document(context: SearchContext, study: optuna.Study) -> dict[str, Any]:
    """The content of ``sweep.json`` that follows from the study."""
    runs = context.output / "runs"
    return {
        "study": context.name,
        "command": context.command,
        "factor": None,
        "search": context.settings.plain() | {"storage": context.storage},
        "cells": [
            {
                "signature": cell["run"],
                "level": f"trial {trial.number}",
                "label": level(trial.number, trial.params).label,
                "level_index": trial.number,
                "seed": cell["seed"],
                "overrides": trial.user_attrs.get("overrides", []),
            }
            for trial in study.get_trials(deepcopy=False)
            for cell in trial.user_attrs.get("cells", [])
            if (runs / cell["run"] / "run.yaml").exists()
        ],
    }
