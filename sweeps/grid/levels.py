"""The level of the factor that a cell belongs to, and its name.

Levels are read from the overrides of the sweep, so their order is that of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.compose.overrides import key_of, parsed, short_key, value_text

SEED = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a factor."""

    name: str
    """Short and stable, e.g. ``0.28`` or ``positive only``: identifies the level in MLflow and reports."""
    label: str
    """The name to display."""
    index: int
    """Position in the sweep, from 0."""


def swept_keys(batch: Sequence[Sequence[str]], factor_key: str | None) -> list[str]:
    """Keys whose values differ within the sweep, and the factor's key, in their order; never the seed."""
    values: dict[str, set[str]] = {}
    for overrides in batch:
        for override in overrides:
            values.setdefault(key_of(override), set()).add(override.partition("=")[2])
    return [key for key, distinct in values.items() if (len(distinct) > 1 or key == factor_key) and key != SEED]


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
    names, short_names = [], []
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
        short_names.append(prefix + (known or text))
    return (", ".join(names), ", ".join(short_names)) if keys else ("default", "default")
