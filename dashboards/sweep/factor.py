"""The factor of a sweep and its hypothesis, parsed from ``sweep.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

_DIRECTIONS = {
    1: ("increase", "increases", "increasing", "up", "higher", "positive", "rise", "rises", "rising"),
    -1: ("decrease", "decreases", "decreasing", "down", "lower", "negative", "fall", "falls", "falling"),
    0: ("none", "no effect", "unchanged", "equal", "same"),
}
"""Words for a direction in a factor's YAML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """The hypothesis of a factor, stated in its YAML before anything is run."""

    metric: str
    """Metric key whose final value the claim is about."""
    direction: int | None
    """+1: the metric rises along ``levels``; -1: it falls; 0: no effect; None: the YAML states no known direction."""
    statement: str = ""
    source: str = ""
    levels: tuple[str, ...] = ()
    """Levels (names or labels) along which the direction is claimed. Empty: all levels in order (ordered factor), or
    the reference and the only other level."""
    margin: float = math.nan
    """With direction 0: the largest end-to-end difference that still counts as none, in the metric's unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination of the factor's values and those of one other key."""

    label: str
    """Of the factor alone."""
    ordered: bool
    """Whether the factor's own values have an order."""
    values: tuple[str, ...]
    """Of the factor's key, in the order of the sweep."""
    other_key: str
    other_label: str
    other_values: tuple[str, ...]
    """In the order that its claim names, otherwise in that of the sweep."""
    other_hypothesis: Hypothesis | None
    levels: Mapping[tuple[str, str], str]
    """Name of the level by (value, other value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """The configuration key that a sweep varies."""

    name: str
    key: str
    label: str
    unit: str = ""
    ordered: bool = False
    hypothesis: Hypothesis | None = None
    held: Mapping[str, str] = field(default_factory=dict)
    """Keys that the factor keeps fixed, with their values."""
    crossed: tuple[str, ...] = ()
    """Other keys that vary in the same sweep: its levels then have no single order."""
    grid: Grid | None = None
    """Where one other key varies, and every combination is a level."""

    @property
    def axis(self) -> str:
        """Axis title: label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def parse_factor(document: Mapping[str, Any] | None, study: str, cells: Sequence[Mapping[str, Any]] = ()) -> Factor:
    """The factor of a sweep; a sweep of plain overrides (``None``) becomes an unordered factor without hypothesis.

    ``cells`` are those of ``sweep.json``: their overrides tell what else the sweep varies.
    """
    if document is None:
        return Factor(name=study, key="", label="Configuration")
    crossed = crossed_keys(cells, str(document.get("key") or ""))
    name = str(document.get("name") or study)
    label = str(document.get("label") or name.replace("_", " "))
    hypothesis = _parse_hypothesis(document["hypothesis"]) if document.get("hypothesis") else None
    return Factor(
        name=name,
        key=str(document.get("key") or ""),
        label=", ".join([label, *crossed]),
        unit=str(document.get("unit") or ""),
        ordered=bool(document.get("ordered")) and not crossed,
        hypothesis=hypothesis,
        held={str(key): str(value) for key, value in (document.get("held") or {}).items()},
        crossed=crossed,
        grid=_grid(document, label, hypothesis, crossed, cells),
    )


def _grid(
    document: Mapping[str, Any],
    label: str,
    hypothesis: Hypothesis | None,
    crossed: Sequence[str],
    cells: Sequence[Mapping[str, Any]],
) -> Grid | None:
    """The grid of a sweep; its document may say of the other key, under ``crossed_with``, its label and what is claimed
    along it of the same metric."""
    key = str(document.get("key") or "")
    if len(crossed) != 1 or not key:
        return None
    levels: dict[tuple[str, str], str] = {}
    for cell in cells:
        assigned = _values(cell)
        if key not in assigned or crossed[0] not in assigned:
            return None
        levels[assigned[key], assigned[crossed[0]]] = str(cell.get("level"))
    values, others = (tuple(dict.fromkeys(pair[place] for pair in levels)) for place in (0, 1))
    if len(levels) != len(values) * len(others) or len(set(levels.values())) != len(levels):
        return None
    stated = document.get("crossed_with") or {}
    stated = stated if str(stated.get("key")) == crossed[0] else {}
    metric = {"metric": hypothesis.metric if hypothesis else None}
    claimed = _parse_hypothesis({**stated, **metric}) if stated.get("direction") else None
    order = claimed.levels if claimed and set(others) <= set(claimed.levels) else others
    return Grid(
        label=label,
        ordered=bool(document.get("ordered")),
        values=values,
        other_key=crossed[0],
        other_label=str(stated.get("label") or crossed[0]),
        other_values=tuple(value for value in order if value in others),
        other_hypothesis=replace(claimed, levels=()) if claimed and order is claimed.levels else None,
        levels=levels,
    )


def _values(cell: Mapping[str, Any]) -> dict[str, str]:
    """What a cell's overrides set, as text, by key."""
    pairs = (str(override).partition("=") for override in cell.get("overrides") or ())
    return {name.lstrip("+~"): value for name, _, value in pairs}


def crossed_keys(cells: Sequence[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    """Override keys, but for ``key`` and the seed, whose values differ between the cells; in order of appearance."""
    values: dict[str, set[str]] = {}
    for cell in cells:
        for name, value in _values(cell).items():
            values.setdefault(name, set()).add(value)
    return tuple(name for name, distinct in values.items() if len(distinct) > 1 and name not in (key, "seed"))


def _parse_hypothesis(document: Mapping[str, Any]) -> Hypothesis:
    word = str(document.get("direction") or "").strip().lower()
    return Hypothesis(
        metric=str(document.get("metric") or "policy/entropy"),
        direction=next((sign for sign, words in _DIRECTIONS.items() if word in words), None),
        statement=str(document.get("statement") or ""),
        source=str(document.get("source") or ""),
        levels=tuple(str(level) for level in document.get("levels") or ()),
        margin=float(document["margin"]) if document.get("margin") is not None else math.nan,
    )
