"""Suites by name, as settings of :class:`trainer.tasks.jsonl.JsonlTask` in ``trainer/assets/suites/NAME.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError, filled, nearest
from trainer.tasks.jsonl import JsonlTask

FOLDER = ROOT / "trainer" / "assets" / "suites"


def names() -> list[str]:
    """All named suites."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def named(name: str, settings: Mapping[str, Any]) -> JsonlTask:
    """The task whose only suite is ``name``, with ``settings`` in place of those of its file (``path``: a local copy).

    Raises :class:`ConfigError` for a name or a setting that is not known, and for a local file that is missing.
    """
    file: Path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise ConfigError(f"suite={name} is no named suite: {nearest(name, names())}")
    node = yaml.safe_load(file.read_text(encoding="utf-8")) | dict(settings)
    return filled(JsonlTask, node | {"suite_paths": {name: node["path"]}}, f"suite.{name}")
