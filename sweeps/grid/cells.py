"""From composed configurations to cells: frozen, signed, each with its level and seed. Nothing is written here.

Everything that can be refused without importing the trainer is refused here.
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
from sweeps.grid.judge import problems_of
from sweeps.grid.levels import Level, levels
from sweeps.queues.base import open_queue
from sweeps.queues.machine import settled
from trainer.contract.config import ConfigError, require
from trainer.contract.identity import group_signature, identity, signature
from trainer.contract.settings import coerced

NOT_FROZEN = ("hydra", "plan", "retry", "max_hours", "yes")
"""Top-level keys that are about this invocation only."""

SHARED = ("output", "launcher", "tracking", "plan", "retry", "max_hours", "yes", "study")
"""Top-level keys that have to be equal in all cells of a sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a sweep, decided."""

    config: Mapping[str, Any]
    """Resolved and frozen: what ``run.yaml`` will hold, but for tracking and provenance."""
    signature: str
    level: Level
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people: level and seed."""
        return f"{self.level.label}, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One composed configuration of a sweep as plain data."""

    config: Mapping[str, Any]
    """Read only: members share what is equal among them."""
    overrides: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """What presets say of groups that were chosen."""


def members(composed: Iterable[Composed]) -> list[Member]:
    """Resolve configurations one at a time: a composed one is a hundred times larger than what a cell keeps of it."""
    shared: dict[str, Any] = {}
    return [
        Member(
            config={
                key: shared.setdefault(json.dumps(value, default=str), value)
                for key, value in resolved(item.config).items()
            },
            overrides=item.overrides,
            left_out=item.left_out,
        )
        for item in composed
    ]


def cells(members: Sequence[Member]) -> list[Cell]:
    """The cells of a sweep, in its order. Raises :class:`ConfigError` listing every problem, one sentence a line."""
    configs = [member.config for member in members]
    problems = dict.fromkeys(sentence for config in configs for sentence in problems_of(config))
    if problems:
        raise ConfigError("\n".join(problems))
    _same_for_all(configs)
    every = levels([member.overrides for member in members], configs[0].get("factor"))
    made = [_cell(member, level) for member, level in zip(members, every, strict=True)]
    _all_different(made)
    _clipping_acts(made)
    return made


def _cell(member: Member, level: Level) -> Cell:
    frozen = _frozen(member.config)
    return Cell(
        config=frozen, signature=signature(frozen), level=level, seed=frozen["seed"], overrides=member.overrides
    )


def resolved(config: DictConfig) -> dict[str, Any]:
    """Plain data, interpolations replaced, numbers in one form, paths absolute. Changes ``config``."""
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
    on_gpus = config["hardware"]["device"] == "auto" and open_queue(config["launcher"]).devices > 0
    return {key: value for key, value in settled(config, on_gpus=on_gpus).items() if key not in NOT_FROZEN}


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
    """Two cells of one identity would be one run counted twice."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.signature, cell)
        if other is not cell and other.overrides == cell.overrides:
            raise ConfigError(f"the cell ({cell.name}) is asked for twice: leave out a value that is repeated")
        if other is not cell:
            raise ConfigError(
                f"the cells ({other.name}) and ({cell.name}) are the same experiment: what is swept does not reach the "
                "run, or cannot move a curve (launcher, tracking, checkpoint); sweep something else"
            )


def _clipping_acts(cells: Sequence[Cell]) -> None:
    """Refuse levels that differ in clip thresholds only while every ratio is 1, however they were written down."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        optim, surrogate = cell.config["optim"], cell.config["surrogate"]
        if (optim["updates_per_rollout"], optim["epochs"]) != (1, 1):
            continue
        without = {key: value for key, value in surrogate.items() if key not in ("clip_low", "clip_high")}
        other = seen.setdefault(group_signature({**cell.config, "surrogate": without}), cell)
        if identity({**other.config, "seed": 0}) != identity({**cell.config, "seed": 0}):
            raise ConfigError(
                f"the levels {other.level.label!r} and {cell.level.label!r} differ in clip thresholds only, but with "
                "one update per rollout (optim.updates_per_rollout=1, optim.epochs=1) every ratio is 1 and no "
                "threshold acts: set optim.updates_per_rollout=4"
            )
