"""What is written down about trials for people and reports: user attributes of the study, and ``sweep.json``.

The driver does not need it to go on, except for the rung that a trial was promoted to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from sweeps.grid import sweep as studies
from sweeps.grid.cells import Cell
from sweeps.plan.estimate import busy_s, timings
from sweeps.search.context import SearchContext, level
from sweeps.search.space import Value
from trainer.contract.status import read_object, read_status


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the runs of a trial have cost."""

    steps: int
    """Training steps done."""
    seconds: float
    """Seconds within steps and evaluations."""


def spent(run_dirs: Sequence[Path]) -> Spent:
    """Steps and seconds of these runs."""
    statuses = [read_status(run_dir) for run_dir in run_dirs]
    return Spent(
        steps=sum(status.step for status in statuses if status is not None),
        seconds=sum(busy_s(timings(run_dir / "timings.jsonl")) for run_dir in run_dirs),
    )


class Ledger:
    """Keeps user attributes and ``sweep.json`` up to date."""

    def __init__(self, context: SearchContext, study: optuna.Study) -> None:
        self._context, self._study = context, study

    def begun(self, trial: optuna.Trial, values: Mapping[str, Value], cells: Sequence[Cell], rung: int) -> None:
        """A trial begins a rung, or goes on with it: its overrides and runs."""
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
        done = status is not None and status.state == "COMPLETED"
        return {"seed": cell.seed, "rung": rung, "run": cell.signature, "reused": done}

    def ended(self, trial: optuna.Trial, reason: str, cost: Spent) -> None:
        """A trial has come to its end."""
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("steps_run", cost.steps)
        trial.set_user_attr("seconds", round(cost.seconds, 3))

    def save(self) -> None:
        """Write ``sweep.json``: so ``python -m sweeps`` knows the runs of the search."""
        path = self._context.folder / "sweep.json"
        before = read_object(path, "it is written anew") or {}
        studies.save(self._context.folder, before | document(self._context, self._study))


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
