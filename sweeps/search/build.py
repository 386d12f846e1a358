"""Builds the :class:`~sweeps.search.context.SearchContext` from the command line and checks it. Nothing is written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from sweeps.compose.compose import batch_composer
from sweeps.compose.explain import explained
from sweeps.compose.overrides import key_of, merged
from sweeps.compose.presets import chosen_groups
from sweeps.grid.cells import Cell, cells, resolve_all
from sweeps.grid.levels import Level
from sweeps.grid.sweep import chosen_name, name_of
from sweeps.queues.base import open_queue
from sweeps.search.context import Compose, SearchContext
from sweeps.search.settings import Settings, settings
from sweeps.search.space import described, overrides, probes
from sweeps.search.store import storage_location
from trainer.contract.component_source import component_defaults
from trainer.contract.settings import ConfigError

UNTUNED = Level(name="untuned", label="untuned", index=0)


def build(loader: Any, master: DictConfig, arguments: Sequence[str]) -> SearchContext:
    """The search that ``arguments`` ask for. Raises :class:`ConfigError`."""
    choice = str(master.hydra.runtime.choices["search"])
    node = OmegaConf.to_container(master.search, resolve=True)
    assert isinstance(node, dict)
    requested = settings(component_defaults("sweeps.search.settings.Search") | {str(k): v for k, v in node.items()})
    _refuse(arguments, requested)
    chosen = chosen_groups(arguments)
    from_settings = [
        text
        for text in (*requested.search.fixed, *requested.search.measure)
        if key_of(text).partition(".")[0] not in chosen
    ]
    fixed = tuple(merged([*from_settings, *arguments]))
    compose = _composer(loader, master)
    first = compose([[*fixed, *requested.search.baseline, f"seed={requested.search.seeds[0]}"]])[0]
    name = chosen_name(first.config) or name_of(f"search-{choice}", arguments)
    output = Path(first.config["output"])
    return SearchContext(
        name=name,
        command=shlex.join(["python", "sweep.py", *sys.argv[1:]]),
        output=output,
        settings=requested,
        fixed=fixed,
        config=first.config,
        compose=compose,
        queue=open_queue(first.config["launcher"], [first.config]),
        storage=storage_location(requested.search, output / "sweeps" / name),
    )


def _refuse(arguments: Sequence[str], requested: Settings) -> None:
    """Raise :class:`ConfigError` for overrides that cannot be combined with a search."""
    varied = {parameter.key for parameter in requested.space}
    for item in OverridesParser.create().parse_overrides(list(arguments)):
        key = item.key_or_group
        if item.is_sweep_override():
            raise ConfigError(
                f"{key} names several values, but a search chooses values itself: give one, or put it into search.space"
            )
        if key in varied:
            raise ConfigError(f"{key} is what this search varies: leave it out, or change search.space")
        if key == "seed":
            raise ConfigError("seed cannot be set beside a search, whose trials share seeds: set search.seeds")
        if key == "factor":
            raise ConfigError("factor and search cannot be combined: run one after the other")


def _composer(loader: Any, master: DictConfig) -> Compose:
    composed = batch_composer(loader, master)

    def compose(batch: Sequence[Sequence[str]]) -> list[Cell]:
        with explained(batch[0]):
            return cells(resolve_all(composed(batch)))

    return compose


def check_cells(context: SearchContext) -> Iterator[Cell]:
    """Cells that are checked but not trained: the untuned default and both ends of every range.

    Raises :class:`ConfigError` naming the key.
    """
    seed = context.settings.search.seeds[0]
    yield from context.cells(context.settings.search.baseline, [seed], UNTUNED)
    for parameter, ends in probes(context.settings.space):
        batch = [merged([*context.fixed, *overrides(values), f"seed={seed}"]) for values in ends]
        try:
            # The ends of a range have to differ; of choices, some may be alike at a certain value of another key.
            composed = [context.compose([texts])[0] for texts in batch] if parameter.choices else context.compose(batch)
        except ConfigError as error:
            culprit = next((other.key for other in context.settings.space if other.key in str(error)), parameter.key)
            raise ConfigError(f"search.space.{culprit}: {error}") from error
        for cell, values in zip(composed, ends, strict=True):
            yield replace(cell, level=Level(name="probe", label=f"search.space: {described(values)}", index=0))
