"""What all trials of a search share: fixed overrides, how configurations are composed, where runs go.

Made by :mod:`sweeps.search.start`; nothing in it changes while a search goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.compose.overrides import key_of
from sweeps.grid.cells import Cell
from sweeps.grid.levels import Level
from sweeps.grid.sweep import Study
from sweeps.queues.base import Queue
from sweeps.search.settings import Settings
from sweeps.search.space import Value, described, overrides
from trainer.contract.identity import NOT_IDENTITY

NOT_TUNED = NOT_IDENTITY - {"method"} | {"evaluation", "hardware", "seed", "steps"}
"""Top-level keys of overrides that are no part of what a search finds."""

Compose = Callable[[Sequence[Sequence[str]]], list[Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchContext:
    """One search, decided."""

    name: str
    command: str
    output: Path
    settings: Settings
    fixed: tuple[str, ...]
    """Overrides of every run: those of the search, then those of the command line."""
    config: Mapping[str, Any]
    """Of the untuned default, at the first seed."""
    compose: Compose
    queue: Queue
    storage: str
    """URL or path of the Optuna storage."""

    @property
    def study(self) -> Study:
        """The search as an ordinary sweep of no cells yet: name, folder, command."""
        return Study(name=self.name, command=self.command, output=self.output, cells=())

    @property
    def folder(self) -> Path:
        """Holds journal, ``sweep.json``, report and the tuned preset."""
        return self.study.folder

    @property
    def stop(self) -> Path:
        """Exists once somebody has cancelled the search: nothing further is asked for."""
        return self.folder / "STOP"

    @property
    def num_seeds(self) -> int:
        """Seeds of a trial that reaches the last rung."""
        return len(self.settings.search.seeds)

    @property
    def steps(self) -> int:
        """Training steps of a run."""
        return int(self.config["steps"])

    def run_dir(self, cell: Cell) -> Path:
        """Where a cell is trained."""
        return self.study.run_dir(cell)

    def trial_cells(self, number: int, values: Mapping[str, Value]) -> tuple[Cell, ...]:
        """A run for every seed of a trial. Raises :class:`~trainer.contract.config.ConfigError`."""
        return self.runs(overrides(values), self.settings.search.seeds, level(number, values))

    def runs(self, more: Sequence[str], seeds: Sequence[int], at: Level) -> tuple[Cell, ...]:
        """:meth:`cells` as they are frozen: which search asked for a run is no part of it."""
        return tuple(
            replace(cell, config={key: value for key, value in cell.config.items() if key != "search"})
            for cell in self.cells(more, seeds, at)
        )

    def cells(self, more: Sequence[str], seeds: Sequence[int], at: Level) -> tuple[Cell, ...]:
        """A run for every seed with ``more`` overrides, all of one level."""
        base = merged([*self.fixed, *more])
        made = self.compose([[*base, f"seed={seed}"] for seed in seeds])
        return tuple(replace(cell, level=at) for cell in made)

    def tuned(self, values: Mapping[str, Value]) -> list[str]:
        """Overrides that make a trial: what is fixed about the method, then what was suggested."""
        return [text for text in merged([*self.fixed, *overrides(values)]) if is_tuned(text)]


def is_tuned(override: str) -> bool:
    """Whether an override belongs to what a search finds, and not to how it is run or examined."""
    return key_of(override).partition(".")[0] not in NOT_TUNED


def merged(texts: Sequence[str]) -> list[str]:
    """Overrides of which the last of each key counts."""
    last = {key_of(text): text for text in texts}
    return [text for text in texts if last[key_of(text)] is text]


def level(number: int, values: Mapping[str, Value]) -> Level:
    """What a trial is called in tables."""
    return Level(name=f"trial {number}", label=f"trial {number}: {described(values)}", index=number)
