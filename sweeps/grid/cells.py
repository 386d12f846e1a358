"""The cells of a sweep, from composed configurations: each with its resolved configuration, signature, level and seed.

Everything that can be checked without importing the trainer is checked here. Nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeps.compose.components import normalised
from sweeps.compose.compose import Composed
from sweeps.compose.explain import explain
from sweeps.grid.levels import Level, levels
from sweeps.grid.problems import config_problems
from sweeps.queues.base import open_queue
from sweeps.queues.machine import with_device_and_threads
from trainer.contract.identity import group_signature, identity, signature
from trainer.contract.settings import ConfigError, coerced, require

NOT_FROZEN = ("hydra", "plan", "retry", "max_hours", "yes")
"""Top-level keys that concern one invocation of ``sweep.py`` only; ``run.yaml`` does not hold them."""

SHARED = ("output", "launcher", "tracking", "plan", "retry", "max_hours", "yes", "study")
"""Top-level keys that have to be equal in all cells of a sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a sweep: a level of the factor and a seed."""

    config: Mapping[str, Any]
    """The resolved configuration: what ``run.yaml`` will hold, without tracking and provenance."""
    signature: str
    level: Level
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Level and seed, to display."""
        return f"{self.level.label}, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfig:
    """One configuration of a sweep as plain data, interpolations resolved."""

    config: Mapping[str, Any]
    """Read only: configurations of a sweep share the objects of equal values."""
    overrides: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Warnings about values of presets that were dropped; see :mod:`sweeps.compose.presets`."""


def resolve_all(composed: Iterable[Composed]) -> list[ResolvedConfig]:
    """Resolve configurations one at a time: Hydra's object is a hundred times larger than the plain data."""
    shared: dict[str, Any] = {}
    return [
        ResolvedConfig(
            config={
                key: shared.setdefault(json.dumps(value, default=str), value)
                for key, value in resolve(item.config).items()
            },
            overrides=item.overrides,
            left_out=item.left_out,
        )
        for item in composed
    ]


def cells(resolve_all: Sequence[ResolvedConfig]) -> list[Cell]:
    """The cells of a sweep, in the order of its configurations. Raises :class:`ConfigError` with a line per problem."""
    configs = [member.config for member in resolve_all]
    require_valid(configs)
    cell_levels = levels([member.overrides for member in resolve_all], configs[0].get("factor"))
    built = [cell_of(member, level) for member, level in zip(resolve_all, cell_levels, strict=True)]
    _all_different(built)
    _clipping_acts(built)
    return built


def require_valid(configs: Sequence[Mapping[str, Any]]) -> None:
    """Raise :class:`ConfigError`, a line a problem, for configurations that cannot be run or not in one sweep."""
    problems = dict.fromkeys(sentence for config in configs for sentence in config_problems(config))
    if problems:
        raise ConfigError("\n".join(problems))
    _same_for_all(configs)


def cell_of(member: ResolvedConfig, level: Level) -> Cell:
    """The cell of a configuration that belongs to ``level``."""
    frozen = _frozen(member.config)
    return Cell(
        config=frozen, signature=signature(frozen), level=level, seed=frozen["seed"], overrides=member.overrides
    )


def resolve(config: DictConfig) -> dict[str, Any]:
    """``config`` as plain data: interpolations resolved, numbers of the annotated type, paths absolute. Changes
    ``config``."""
    try:
        _require_output(OmegaConf.to_container(config))
        bare = config
        if "hydra" in config:
            bare = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        OmegaConf.set_readonly(bare, False)
        OmegaConf.update(bare, "output", str(Path(str(config.output)).expanduser().absolute()))
        plain = OmegaConf.to_container(bare, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    document: dict[str, Any] = normalised(plain)
    return document


def _require_output(config: Any) -> None:
    require(coerced(config.get("output"), str, "output") != "", "output", "", "give the folder that runs go to")


def _frozen(config: Mapping[str, Any]) -> dict[str, Any]:
    on_gpus = config["hardware"]["device"] == "auto" and open_queue(config["launcher"]).num_gpus > 0
    return {
        key: value for key, value in with_device_and_threads(config, on_gpus=on_gpus).items() if key not in NOT_FROZEN
    }


def _same_for_all(configs: Sequence[Mapping[str, Any]]) -> None:
    for key in SHARED:
        for config in configs[1:]:
            for path, value in _differences(config[key], configs[0][key], key):
                require(False, path, value, "it cannot differ between the cells of one sweep")


def _differences(node: Any, other: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and isinstance(other, Mapping):
        for key in {**node, **other}:
            yield from _differences(node.get(key), other.get(key), f"{where}.{key}")
    elif node != other:
        yield where, node


def _all_different(cells: Sequence[Cell]) -> None:
    """Raise :class:`ConfigError` if two cells have one signature: they would be one run, counted twice."""
    by_signature: dict[str, Cell] = {}
    for cell in cells:
        other = by_signature.setdefault(cell.signature, cell)
        if other is not cell and other.overrides == cell.overrides:
            raise ConfigError(f"the cell ({cell.name}) is asked for twice: leave out a value that is repeated")
        if other is not cell:
            raise ConfigError(
                f"the cells ({other.name}) and ({cell.name}) are the same experiment: what is swept does not reach the "
                "run, or cannot move a curve (launcher, tracking, checkpoint); sweep something else"
            )


def _clipping_acts(cells: Sequence[Cell]) -> None:
    """Raise :class:`ConfigError` if levels differ in clip thresholds only and every importance ratio is 1."""
    by_rest: dict[str, Cell] = {}
    for cell in cells:
        optim, surrogate = cell.config["optim"], cell.config["surrogate"]
        if (optim["updates_per_rollout"], optim["epochs"]) != (1, 1):
            continue
        without = {key: value for key, value in surrogate.items() if key not in ("clip_low", "clip_high")}
        other = by_rest.setdefault(group_signature({**cell.config, "surrogate": without}), cell)
        if identity({**other.config, "seed": 0}) != identity({**cell.config, "seed": 0}):
            raise ConfigError(
                f"the levels {other.level.label!r} and {cell.level.label!r} differ in clip thresholds only, but with "
                "one update per rollout (optim.updates_per_rollout=1, optim.epochs=1) every ratio is 1 and no "
                "threshold acts: set optim.updates_per_rollout=4"
            )
