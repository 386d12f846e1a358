"""The factor of a study and the hypothesis it tests, parsed from the sweep's ``sweep.json``.

Called by :mod:`dashboards.load`. Must not judge the hypothesis (:mod:`dashboards.verdict` does) or read any store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RISING = {"increase", "increases", "increasing", "up", "higher", "positive", "rise", "rises", "rising", "+", "1", "+1"}
_FALLING = {"decrease", "decreases", "decreasing", "down", "lower", "negative", "fall", "falls", "falling", "-", "-1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """What a factor claims before anything is run."""

    metric: str
    """Metric key whose final value the claim is about."""
    direction: int
    """+1: the metric rises along ``levels``; -1: it falls; 0: no readable direction was stated."""
    statement: str = ""
    source: str = ""
    levels: tuple[str, ...] = ()
    """Levels along which the direction is claimed. Empty: all levels in order (ordered factor), or the reference
    and the only other level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """What a study varies."""

    name: str
    key: str
    label: str
    unit: str = ""
    ordered: bool = False
    hypothesis: Hypothesis | None = None

    @property
    def axis(self) -> str:
        """Axis title: label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def parse_factor(document: Mapping[str, Any] | None, study: str) -> Factor:
    """The factor of a sweep; a sweep of plain overrides (``None``) becomes an unordered factor without hypothesis."""
    if document is None:
        return Factor(name=study, key="", label="Configuration")
    name = str(document.get("name") or study)
    hypothesis = document.get("hypothesis")
    return Factor(
        name=name,
        key=str(document.get("key") or ""),
        label=str(document.get("label") or name.replace("_", " ")),
        unit=str(document.get("unit") or ""),
        ordered=bool(document.get("ordered")),
        hypothesis=_parse_hypothesis(hypothesis) if hypothesis else None,
    )


def _parse_hypothesis(document: Mapping[str, Any]) -> Hypothesis:
    word = str(document.get("direction") or "").strip().lower()
    return Hypothesis(
        metric=str(document.get("metric") or "policy/entropy"),
        direction=1 if word in _RISING else -1 if word in _FALLING else 0,
        statement=str(document.get("statement") or ""),
        source=str(document.get("source") or ""),
        levels=tuple(str(level) for level in document.get("levels") or ()),
    )
