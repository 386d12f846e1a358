"""Which level of the factor a cell belongs to, and what that level is called.

Pure: it reads overrides as the sweep gave them, so the order of levels is their order there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEED = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level."""

    name: str
    """Short and stable, e.g. ``0.28`` or ``positive only``: the key of the level everywhere."""
    label: str
    """What people read."""
    index: int
    """Position in the sweep, from 0."""


def key_of(override: str) -> str:
    """``+optim.lr=1`` → ``optim.lr``."""
    return override.partition("=")[0].lstrip("+~")


def swept_keys(batch: Sequence[Sequence[str]], factor_key: str | None) -> list[str]:
    """Keys whose values differ within the sweep and the factor's own, in their order there; the seed is not one."""
    values: dict[str, set[str]] = {}
    for overrides in batch:
        for override in overrides:
            values.setdefault(key_of(override), set()).add(override.partition("=")[2])
    return [key for key, seen in values.items() if (len(seen) > 1 or key == factor_key) and key != SEED]


def levels(batch: Sequence[Sequence[str]], factor: Mapping[str, Any] | None) -> list[Level]:
    """The level of each member of the sweep."""
    factor_key = str(factor["key"]) if factor else None
    keys = swept_keys(batch, factor_key)
    keys.sort(key=lambda key: key != factor_key)  # the factor first, the rest in the order of the sweep
    labels = (factor or {}).get("labels") or {}
    names = [_name(overrides, keys, factor_key, labels) for overrides in batch]
    order = {name: index for index, name in enumerate(dict.fromkeys(name for name, _ in names))}
    return [Level(name=name, label=label, index=order[name]) for name, label in names]


def _name(
    overrides: Sequence[str], keys: Sequence[str], factor_key: str | None, labels: Mapping[str, Any]
) -> tuple[str, str]:
    values = {key_of(override): parsed(override) for override in overrides}
    names, shown = [], []
    for key in keys:
        text = value_text(values.get(key))
        known = (
            next((label for label, value in labels.items() if value == values.get(key)), None)
            if key == factor_key
            else None
        )
        prefix = "" if key == factor_key or len(keys) == 1 else f"{short_key(key, keys)} "
        # A pair or a list of files has no short form of its own, so its label is its name.
        names.append(prefix + (known if known and isinstance(values.get(key), dict | list) else text))
        shown.append(prefix + (known or text))
    return (", ".join(names), ", ".join(shown)) if keys else ("default", "default")


@functools.cache
def parsed(override: str) -> Any:
    """The value of an override as plain Python (shared between calls: read only)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString

    def plain(value: Any) -> Any:
        if isinstance(value, QuotedString):
            return value.text
        if isinstance(value, dict):
            return {str(plain(key)): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return plain(OverridesParser.create().parse_override(override).value())


def value_text(value: Any) -> str:
    """``0.28``, ``true``, ``null``, ``a+b`` for a list, ``positive 1, negative 0`` for a mapping."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{key} {value_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "+".join(map(value_text, value)) or "none"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def short_key(key: str, among: Sequence[str]) -> str:
    """The last part of a dotted key where that is unambiguous."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in among) <= 1 else key
