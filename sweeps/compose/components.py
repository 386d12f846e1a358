"""Component settings as plain mappings: fill in defaults, find unknown keys, convert numbers to the annotated type.

A component is a mapping with a ``_target_``. It is never imported here, because that would import torch:
:mod:`trainer.contract.component_source` reads its defaults from the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from sweeps.compose.compose import CONF
from trainer.contract.component_source import component_annotations, component_defaults
from trainer.contract.settings import nearest

PROJECT_PREFIXES = ("trainer.", "sweeps.")
"""Import paths of this project's components; any other ``_target_`` belongs to Hydra."""


def with_defaults(value: Any) -> Any:
    """``value`` with the defaults of its dataclass under every mapping that has a ``_target_``."""
    if isinstance(value, Mapping):
        filled = {key: with_defaults(item) for key, item in value.items()}
        target = value.get("_target_")
        if isinstance(target, str) and target.startswith(PROJECT_PREFIXES):
            return {"_target_": target} | component_defaults(target) | filled
        return filled
    return [with_defaults(item) for item in value] if isinstance(value, list) else value


def open_mappings(node: Any) -> Any:
    """``node``, with new keys allowed in settings whose default is a mapping, such as ``task.suite_paths``."""
    if isinstance(node, DictConfig):
        defaults = _defaults(node) or {}
        for key in map(str, node):
            value = node._get_node(key)
            if isinstance(defaults.get(key), dict) and isinstance(value, DictConfig):
                OmegaConf.set_struct(value, False)
            open_mappings(value)
    return node


def normalised(value: Any) -> Any:
    """``value`` with every number converted to the type of its setting, so that ``lr=1`` and ``lr=1.0`` give one
    signature, and so do ``epochs=2`` and ``epochs=2.0``."""
    if not isinstance(value, Mapping):
        return value
    target = value.get("_target_")
    if isinstance(target, str) and target.startswith(PROJECT_PREFIXES):
        kinds = component_annotations(target)
    else:
        kinds = dict.fromkeys(("seed", "steps"), "int")
    return {key: _as_number(normalised(item), kinds.get(key, "")) for key, item in value.items()}


def _as_number(value: Any, annotation: str) -> Any:
    """A whole number converted to float or int as the annotation says; in a list, each element."""
    if isinstance(value, list):
        return [_as_number(item, annotation) for item in value]
    if "float" in annotation:
        return float(value) if _is_whole(value) else value
    integral = isinstance(value, float) and value.is_integer() and re.search(r"\bint\b|\bSeed\b", annotation)
    return int(value) if integral else value


def unknown_keys(value: Any, where: str = "") -> Iterator[str]:
    """An error message for every key that its component does not have; one for all keys that another choice has."""
    if not isinstance(value, Mapping):
        return
    defaults = _defaults(value)
    unknown = [] if defaults is None else [str(key) for key in value if key != "_target_" and key not in defaults]
    if unknown and (elsewhere := belongs_elsewhere(where, unknown, value["_target_"])):
        yield elsewhere
    else:
        for key in unknown:
            name = value["_target_"].rpartition(".")[2]
            yield f"{where}.{key} is not a setting of {name}: {nearest(key, defaults or ())}"
    for key, item in value.items():
        yield from unknown_keys(item, f"{where}.{key}" if where else str(key))


def missing_keys(value: Any, where: str = "") -> Iterator[str]:
    """An error message for every setting of a component that was deleted from the configuration (``~key``)."""
    if isinstance(value, Mapping):
        for key in sorted((_defaults(value) or {}).keys() - value.keys()):
            yield f"{where}.{key} is missing from the configuration: give {where}.{key}=VALUE instead of deleting it"
        for key, item in value.items():
            yield from missing_keys(item, f"{where}.{key}" if where else str(key))


def belongs_elsewhere(group: str, keys: Sequence[str], target: str) -> str | None:
    """The error message for ``keys`` that the component at ``target`` lacks and other choices of the group have."""
    homes = [path.stem for path in sorted(CONF.glob(f"{group}/*.yaml")) if set(keys) <= set(_fields(path))]
    if not homes:
        return None
    keys_text, name = " and ".join(f"{group}.{key}" for key in keys), target.rpartition(".")[2]
    chosen = f"not {'a setting' if len(keys) == 1 else 'settings'} of {name}"
    return f"{keys_text} {'is' if len(keys) == 1 else 'are'} {chosen}: choose {group}={' or '.join(homes)}"


def _fields(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text())
    return (_defaults(document) or {}) if isinstance(document, dict) else {}


def _defaults(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of a component of this project; None for anything else."""
    target = value.get("_target_")
    return component_defaults(target) if isinstance(target, str) and target.startswith(PROJECT_PREFIXES) else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
