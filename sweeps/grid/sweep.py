"""What a sweep is called and what it says of itself: the study's name and its ``sweep.json``.

The dashboards read the document from MLflow, so its keys are a contract.
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
from trainer.contract.config import ConfigError, nearest, require
from trainer.contract.files import make_folder, write_atomic
from trainer.contract.identity import NOT_IDENTITY
from trainer.contract.status import read_object

LONGEST = 80

Document = dict[str, Any]
"""The content of a ``sweep.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A named sweep."""

    name: str
    command: str
    output: Path
    cells: tuple[Cell, ...]

    @property
    def folder(self) -> Path:
        """Holds ``sweep.json``, the report and Submitit's files."""
        return self.output / "sweeps" / self.name

    def run_dir(self, cell: Cell) -> Path:
        """Named by content, so that no two configurations share one and no configuration has two."""
        return self.output / "runs" / cell.signature

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
        }


def study_name(cells: Sequence[Cell], multirun: bool) -> str:
    """The name a person gave, or: the factor (or what is swept), then whatever else was changed from the default.

    So one name never stands for sweeps over two different bases.
    """
    config = cells[0].config
    given = given_name(config)
    if given is not None:
        return given
    factor = config.get("factor") or {}
    batch = [cell.overrides for cell in cells]
    swept = swept_keys(batch, factor.get("key"))
    base = factor.get("name") or "-".join(short_key(key, swept) for key in swept) or _unswept(cells, multirun)
    return name_of(str(base), cells[0].overrides, {*swept, "factor", str(factor.get("key"))})


def given_name(config: Mapping[str, Any]) -> str | None:
    """The name a person gave (``study.name``), checked: it becomes a folder."""
    given = config["study"].get("name")
    if given is None:
        return None
    valid = isinstance(given, str) and re.fullmatch(r"[A-Za-z0-9][\w.,=+-]*", given) and len(given) <= 2 * LONGEST
    require(
        bool(valid),
        "study.name",
        given,
        "it becomes a folder: use letters, digits and . _ - and start with a letter or digit",
    )
    return str(given)


def name_of(base: str, overrides: Sequence[str], swept: Collection[str] = ()) -> str:
    """``base``, then those of ``overrides`` that change what is run; ``swept`` keys are in ``base`` already."""
    left_out = NOT_IDENTITY - {"method", "study"} | {*swept, SEED}
    fixed = [
        text for text in overrides if key_of(text) not in left_out and key_of(text).partition(".")[0] not in left_out
    ]
    # It becomes a folder, and a factor may be called anything.
    named = re.sub(r"[^\w.,=+-]+", "-", base).lstrip(".-") or "study"
    return _shortened("-".join([named, *(re.sub(r"[^\w.]+", "-", text.lstrip("+~")).strip("-") for text in fixed)]))


def _unswept(cells: Sequence[Cell], multirun: bool) -> str:
    if not multirun:
        return "single"
    return SEED if len(cells) > 1 else "default"


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _factor(config: Mapping[str, Any]) -> dict[str, Any] | None:
    factor = config.get("factor")
    if not factor:
        return None
    held = {key: _at(config, key) for key in factor.get("held") or ()}
    return {**{key: value for key, value in factor.items() if key != "labels"}, "held": held}


def _at(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise ConfigError(
                f"factor.held names {key!r}, which the configuration does not have: mend the factor's YAML"
            )
        node = node[part]
    return node


def save(folder: Path, document: Mapping[str, Any]) -> None:
    """Write ``sweep.json``: the grid as it was asked for last."""
    make_folder(folder)
    write_atomic(folder / "sweep.json", json.dumps(document, indent=1))


def load(output: Path, name: str) -> Document:
    """The ``sweep.json`` of a study; :class:`ConfigError` names the nearest when there is none."""
    path = output / "sweeps" / name / "sweep.json"
    document = read_object(path, "start the sweep again, which writes it anew")
    if document is None:
        known = names(output)
        hint = nearest(name, known) if known else "no sweep has been started there"
        raise ConfigError(f"study {name!r} is not in {output / 'sweeps'}: {hint}")
    keys = {"signature", "level", "label", "level_index", "seed", "overrides"}
    if not isinstance(document.get("cells"), list) or any(not keys <= set(cell) for cell in document["cells"]):
        raise ConfigError(f"{path} does not list the cells of a sweep: start the sweep again, which writes it anew")
    return document


def names(output: Path) -> list[str]:
    """Every study in this output folder, newest first."""
    found = sorted((output / "sweeps").glob("*/sweep.json"), key=lambda path: -path.stat().st_mtime)
    return [path.parent.name for path in found]
