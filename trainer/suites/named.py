"""Suites by name: files in ``trainer/assets/suites/NAME.yaml``.

A file has the settings of a :class:`trainer.tasks.jsonl.JsonlTask`, or ``_target_`` and those of another task, whose
problems are then all in its suite ``heldout``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer.batch.types import Prompt
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError, filled, nearest
from trainer.tasks.base import Task
from trainer.tasks.fitted import Fitted
from trainer.tasks.jsonl import JsonlTask

FOLDER = ROOT / "trainer" / "assets" / "suites"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut(Fitted):
    """The suite ``heldout`` of ``task``, under a name of its own and with nothing to train on."""

    name: str

    def train_prompts(self) -> list[Prompt]:
        """None."""
        return []

    def suites(self) -> dict[str, list[Prompt]]:
        """The one suite."""
        return {self.name: self.task.suites()["heldout"]}


def names() -> list[str]:
    """All named suites."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def named(name: str, settings: Mapping[str, Any]) -> Task:
    """The task whose only suite is ``name``, with ``settings`` in place of those of its file (``path``: a local copy).

    Raises :class:`ConfigError` for a name or a setting that is not known, and for a local file that is missing.
    """
    file: Path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise ConfigError(f"suite={name} is no named suite: {nearest(name, names())}")
    node = yaml.safe_load(file.read_text(encoding="utf-8")) | dict(settings)
    where = f"suite.{name}"
    if (target := node.pop("_target_", None)) is None:
        return filled(JsonlTask, node | {"suite_paths": {name: node["path"]}}, where)
    module, _, kind = target.rpartition(".")
    return HeldOut(name=name, task=filled(getattr(importlib.import_module(module), kind), node, where))
