"""What all trials of a search share: its settings, fixed overrides, queue, storage and output folder. Immutable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.compose.overrides import key_of, merged
from sweeps.grid.cells import Cell
from sweeps.grid.levels import Level
from sweeps.grid.sweep import Sweep
from sweeps.queues.base import Queue
from sweeps.search.settings import Settings
from sweeps.search.space import Value, described, overrides
from trainer.contract.identity import NOT_IDENTITY

NOT_TUNED = NOT_IDENTITY - {"method"} | {"evaluation", "hardware", "seed", "steps"}
"""Top-level keys whose overrides are not part of the configuration that a search finds."""

Compose = Callable[[Sequence[Sequence[str]]], list[Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchContext:
    """A search whose settings have been checked."""

    name: str
    command: str
    output: Path
    settings: Settings
    fixed: tuple[str, ...]
    """Overrides of every run: those of the search, then those of the command line."""
    config: Mapping[str, Any]
    """Configuration of the untuned default at the first seed."""
    compose: Compose
    queue: Queue
    storage: str
    """URL or path of the Optuna storage."""

    @property
    def sweep(self) -> Sweep:
        """The search as a sweep without cells, for its name, folder and command."""
        return Sweep(name=self.name, command=self.command, output=self.output, cells=())

    @property
    def folder(self) -> Path:
        """Holds journal, ``sweep.json``, report and the tuned preset."""
        return self.sweep.folder

    @property
    def stop(self) -> Path:
        """Exists once the search was cancelled: no further trial is started."""
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
        return self.sweep.run_dir(cell)

    def trial_cells(self, number: int, values: Mapping[str, Value]) -> tuple[Cell, ...]:
        """A run for every seed of a trial. Raises :class:`~trainer.contract.settings.ConfigError`."""
        return self.runs(overrides(values), self.settings.search.seeds, level(number, values))

    def runs(self, more: Sequence[str], seeds: Sequence[int], at: Level) -> tuple[Cell, ...]:
        """:meth:`cells` without the ``search`` node, which is not part of a run."""
        return tuple(
            replace(cell, config={key: value for key, value in cell.config.items() if key != "search"})
            for cell in self.cells(more, seeds, at)
        )

    def cells(self, more: Sequence[str], seeds: Sequence[int], at: Level) -> tuple[Cell, ...]:
        """A run for every seed with ``more`` overrides, all of one level."""
        base = merged([*self.fixed, *more])
        composed = self.compose([[*base, f"seed={seed}"] for seed in seeds])
        return tuple(replace(cell, level=at) for cell in composed)

    def tuned(self, values: Mapping[str, Value]) -> list[str]:
        """The overrides of a trial that belong to the method: the fixed ones, then the suggested values."""
        return [text for text in merged([*self.fixed, *overrides(values)]) if is_tuned(text)]


def is_tuned(override: str) -> bool:
    """Whether an override belongs to the method, and not to how it is run or evaluated."""
    return key_of(override).partition(".")[0] not in NOT_TUNED


def level(number: int, values: Mapping[str, Value]) -> Level:
    """The level of a trial, for tables."""
    return Level(name=f"trial {number}", label=f"trial {number}: {described(values)}", index=number)
