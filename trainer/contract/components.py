"""Builds components from mappings with ``_target_``. The import path is the registry; there is no other.

It must not read configuration files or start anything.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from trainer.contract.component_source import component_defaults
from trainer.contract.settings import ConfigError, filled, require


def build_component(node: object, key: str) -> Any:
    """The instance a mapping with ``_target_`` describes.

    Raises :class:`ConfigError` naming ``key`` for a missing target, an unknown field (and its nearest valid name), a
    value of the wrong type, or whatever the component itself refuses.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{key} has no _target_: give the import path of its component, as the files under conf/ do")
    target = str(node["_target_"])
    component_defaults(target)  # refuses what names no class of the project, before anything is imported
    module, _, name = target.rpartition(".")
    component = getattr(importlib.import_module(module), name)
    require(dataclasses.is_dataclass(component), f"{key}._target_", target, "it is no component")
    return filled(component, {field: value for field, value in node.items() if field != "_target_"}, key)
