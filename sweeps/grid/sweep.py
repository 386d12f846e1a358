"""A sweep: its name, its cells, and its ``sweep.json``.

The dashboards read ``sweep.json`` from MLflow, so its keys are part of the interface.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.compose.overrides import key_of, short_key
from sweeps.grid.cells import Cell
from sweeps.grid.levels import SEED, swept_keys
from trainer.contract.files import make_folder, write_atomic
from trainer.contract.identity import NOT_IDENTITY
from trainer.contract.settings import ConfigError, nearest, require
from trainer.contract.status import read_object

MAX_NAME_LENGTH, MAX_CHOSEN_LENGTH = 40, 160
"""Of a name that is made up: short enough to type, and its beginning will do. Of one that somebody chose."""

Document = dict[str, Any]
"""The content of a ``sweep.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What one command line describes: a name and a grid of cells."""

    name: str
    command: str
    output: Path
    cells: tuple[Cell, ...]
    claims: tuple[Document, ...] = ()
    """Of a study of claims: what the dashboards judge on its cells."""

    @property
    def folder(self) -> Path:
        """Holds ``sweep.json``, the report and Submitit's files."""
        return self.output / "sweeps" / self.name

    def run_dir(self, cell: Cell) -> Path:
        """The run folder, named by the signature: one configuration has one folder, in whatever sweep it occurs."""
        return self.output / "runs" / cell.signature

    @property
    def in_queue_order(self) -> tuple[Cell, ...]:
        """The cells as they should run: all levels of one seed first, so that levels can be compared early.

        A study of claims keeps its own order, all seeds of the cheapest claim first, so that it can be judged early.
        """
        return self.cells if self.claims else tuple(sorted(self.cells, key=lambda cell: cell.seed))

    @property
    def num_levels(self) -> int:
        """Different levels among the cells."""
        return len({cell.level.index for cell in self.cells})

    @property
    def num_seeds(self) -> int:
        """Different seeds among the cells."""
        return len({cell.seed for cell in self.cells})

    def document(self) -> Document:
        """The content of ``sweep.json``."""
        return {
            "study": self.name,
            "command": self.command,
            "factor": _factor(self.cells[0].config),
            "cells": [
                {
                    "signature": cell.signature,
                    "level": cell.level.name,
                    "label": cell.level.label,
                    "level_index": cell.level.index,
                    "seed": cell.seed,
                    "overrides": list(cell.overrides),
                }
                for cell in self.cells
            ],
            **({"claims": list(self.claims)} if self.claims else {}),
        }


def sweep_name(cells: Sequence[Cell], multirun: bool) -> str:
    """``study.name`` if it is set, otherwise the factor (or the swept keys) followed by the other overrides.

    With the overrides in the name, sweeps with different fixed settings have different names.
    """
    config = cells[0].config
    chosen = chosen_name(config)
    if chosen is not None:
        return chosen
    factor = config.get("factor") or {}
    batch = [cell.overrides for cell in cells]
    swept = swept_keys(batch, factor.get("key"))
    base = factor.get("name") or "-".join(short_key(key, swept) for key in swept) or _unswept(cells, multirun)
    return name_of(str(base), cells[0].overrides, {*swept, "factor", str(factor.get("key"))})


def chosen_name(config: Mapping[str, Any]) -> str | None:
    """``study.name`` if it is set, checked because it becomes a folder."""
    chosen = config["study"].get("name")
    if chosen is None:
        return None
    valid = (
        isinstance(chosen, str) and re.fullmatch(r"[A-Za-z0-9][\w.,=+-]*", chosen) and len(chosen) <= MAX_CHOSEN_LENGTH
    )
    require(
        bool(valid),
        "study.name",
        chosen,
        "it becomes a folder: use letters, digits and . _ - and start with a letter or digit",
    )
    return str(chosen)


def name_of(base: str, overrides: Sequence[str], swept: Collection[str] = ()) -> str:
    """``base``, then those of ``overrides`` that change what is run; ``swept`` keys are in ``base`` already."""
    left_out = NOT_IDENTITY - {"method", "study"} | {*swept, SEED}
    fixed = [
        text for text in overrides if key_of(text) not in left_out and key_of(text).partition(".")[0] not in left_out
    ]
    # It becomes a folder, and a factor may be called anything.
    stem = re.sub(r"[^\w.,=+-]+", "-", base).lstrip(".-") or "study"
    return _shortened("-".join([stem, *(re.sub(r"[^\w.]+", "-", text.lstrip("+~")).strip("-") for text in fixed)]))


def _unswept(cells: Sequence[Cell], multirun: bool) -> str:
    if not multirun:
        return "single"
    return SEED if len(cells) > 1 else "default"


def _shortened(name: str) -> str:
    return (
        name
        if len(name) <= MAX_NAME_LENGTH
        else f"{name[: MAX_NAME_LENGTH - 7]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    )


def _factor(config: Mapping[str, Any]) -> dict[str, Any] | None:
    factor = config.get("factor")
    if not factor:
        return None
    constants = {key: _at(config, key) for key in factor.get("held") or ()}
    return {**{key: value for key, value in factor.items() if key != "labels"}, "held": constants}


def _at(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise ConfigError(
                f"factor.held names {key!r}, which the configuration does not have: mend the factor's YAML"
            )
        node = node[part]
    return node


def save_document(folder: Path, document: Mapping[str, Any]) -> None:
    """Write ``sweep.json``, replacing that of an earlier start."""
    make_folder(folder)
    write_atomic(folder / "sweep.json", json.dumps(document, indent=1))


def load_document(output: Path, name: str) -> Document:
    """The ``sweep.json`` of a sweep. Raises :class:`ConfigError` with the nearest name when there is none."""
    path = output / "sweeps" / name / "sweep.json"
    document = read_object(path, "start the sweep again, which writes it anew")
    if document is None:
        known = sweep_names(output)
        hint = nearest(name, known) if known else "no sweep has been started there"
        raise ConfigError(f"study {name!r} is not in {output / 'sweeps'}: {hint}")
    keys = {"signature", "level", "label", "level_index", "seed", "overrides"}
    if not isinstance(document.get("cells"), list) or any(not keys <= set(cell) for cell in document["cells"]):
        raise ConfigError(f"{path} does not list the cells of a sweep: start the sweep again, which writes it anew")
    return document


def full_name(output: Path, name: str) -> str:
    """The sweep that ``name`` means: itself, or the only one whose name begins so. Raises :class:`ConfigError`, with
    the names, where several do; a name that none begins with is returned as it is."""
    names = sweep_names(output)
    begun = sorted(known for known in names if known.startswith(name))
    if name in names or not begun:
        return name
    if len(begun) > 1:
        raise ConfigError(f"study {name!r} may be any of {', '.join(begun)}: give more of the name")
    return begun[0]


def sweep_names(output: Path) -> list[str]:
    """The sweeps in this output folder, newest first."""
    files = sorted((output / "sweeps").glob("*/sweep.json"), key=lambda path: -path.stat().st_mtime)
    return [path.parent.name for path in files]
