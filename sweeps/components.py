"""Components as plain mappings: fill in defaults, find unknown keys, bring numbers into one form.

Called while a configuration is composed and when it is frozen. It must not import a component: :mod:`trainer.config`
reads defaults from the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config import component_defaults, nearest

OWN = ("trainer.", "sweeps.")
"""Import paths whose defaults can be read; any other ``_target_`` belongs to Hydra."""


def with_defaults(value: Any) -> Any:
    """``value`` with the defaults of its dataclass under every mapping that has a ``_target_``."""
    if isinstance(value, Mapping):
        filled = {key: with_defaults(item) for key, item in value.items()}
        target = value.get("_target_")
        if isinstance(target, str) and target.startswith(OWN):
            return {"_target_": target} | component_defaults(target) | filled
        return filled
    return [with_defaults(item) for item in value] if isinstance(value, list) else value


def normalised(value: Any) -> Any:
    """``value`` with floats where the default is a float: ``lr=1`` and ``lr=1.0`` are one experiment."""
    if not isinstance(value, Mapping):
        return value
    defaults = _defaults(value)
    plain = {key: normalised(item) for key, item in value.items()}
    return {
        key: float(item) if _is_whole(item) and isinstance(defaults.get(key), float) else item
        for key, item in plain.items()
    }


def unknown_keys(value: Any, where: str = "") -> Iterator[str]:
    """One sentence for every key that its component does not have."""
    if not isinstance(value, Mapping):
        return
    defaults = _defaults(value)
    for key, item in value.items():
        path = f"{where}.{key}" if where else str(key)
        if defaults and key != "_target_" and key not in defaults:
            yield f"{path} is not a setting of {value['_target_'].rpartition('.')[2]}: {nearest(str(key), defaults)}"
        yield from unknown_keys(item, path)


def _defaults(value: Mapping[str, Any]) -> dict[str, Any]:
    target = value.get("_target_")
    return component_defaults(target) if isinstance(target, str) and target.startswith(OWN) else {}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
