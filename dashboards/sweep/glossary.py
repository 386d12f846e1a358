"""Definitions, units and ranges of metrics, from the ``metrics.json`` that the runs logged.

The trainer defines them; this package only adds labels. Without a ``metrics.json`` a metric has a label only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.statistics.intervals import UNBOUNDED, Bounds
from dashboards.sweep.names import label_of

GLOSSARY_FILE = "metrics.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric with its label, unit and definition."""

    key: str
    label: str
    unit: str = ""
    """Unit in words ("nats", "0 to 1"); empty for a plain number."""
    definition: str = ""
    """Empty if no run logged one."""
    better: str = ""
    """higher, lower, or empty where neither is better."""
    range: Bounds = UNBOUNDED
    """The values it can take, in its unit."""

    @property
    def axis(self) -> str:
        """Axis title: label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class GlossaryEntry:
    """One row of ``metrics.json``: a metric, or a family of them where the name has ``<placeholders>``."""

    name: str
    pattern: re.Pattern[str]
    unit: str
    definition: str
    better: str
    range: Bounds

    @property
    def literal(self) -> int:
        """Number of characters outside placeholders: of two families that match a key, the larger number wins."""
        return len(re.sub(r"<\w+>", "", self.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Glossary:
    """All entries of a ``metrics.json``."""

    entries: tuple[GlossaryEntry, ...] = ()

    def describe(self, key: str) -> Metric:
        """Label of ``key`` with its unit, definition and range as far as the runs gave them."""
        matches = [(entry, match) for entry in self.entries if (match := entry.pattern.fullmatch(key))]
        if not matches:
            return Metric(key=key, label=label_of(key))
        entry, match = max(matches, key=lambda pair: pair[0].literal)
        definition = entry.definition
        for name, value in match.groupdict().items():
            definition = definition.replace(f"<{name}>", value)
        return Metric(
            key=key,
            label=label_of(key),
            unit="" if entry.unit == "1" else entry.unit,
            definition=definition,
            better=entry.better,
            range=entry.range,
        )


def parse_glossary(text: str, where: str) -> Glossary:
    """The glossary in the text of a ``metrics.json``; ValueError naming ``where`` when it is not one."""
    try:
        rows: Sequence[Mapping[str, Any]] = json.loads(text)
        return Glossary(entries=tuple(_entry(row) for row in rows))
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
        raise ValueError(f"{GLOSSARY_FILE} of {where} cannot be read: {error}") from error


def _entry(row: Mapping[str, Any]) -> GlossaryEntry:
    name = str(row["name"])
    parts = re.split(r"<(\w+)>", name)
    pattern = "".join(f"(?P<{part}>[^/]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    low, high = row.get("range") or (None, None)
    return GlossaryEntry(
        name=name,
        pattern=re.compile(pattern),
        unit=str(row.get("unit") or ""),
        definition=str(row.get("definition") or ""),
        better=str(row.get("better") or ""),
        range=Bounds(low=-math.inf if low is None else float(low), high=math.inf if high is None else float(high)),
    )
