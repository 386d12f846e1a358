"""What a claim says and how it is tested: the part of ``conf/claim/*.yaml`` that the dashboards judge.

``sweep.json`` of a study of claims lists them, each with the levels of the sweep that are its arms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.claims.values import VALUES, metrics_of
from dashboards.claims.words import compared_words, value_words

DIRECTIONS = {"increase": (0.0, math.inf), "decrease": (-math.inf, 0.0)}
COMPARISONS = ("value", "difference", "trend", "peak", "interaction", "any")
_ARMS = {
    "value": (1, 1),
    "difference": (2, 2),
    "trend": (3, 99),
    "peak": (3, 99),
    "interaction": (4, 4),
    "any": (2, 99),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where a claim expects a number: strictly between ``low`` and ``high``; one of them may be infinite."""

    low: float
    high: float

    @property
    def words(self) -> str:
        """For a table: ``above 0.5``."""
        if math.isinf(self.high):
            return f"above {self.low:g}"
        return f"below {self.high:g}" if math.isinf(self.low) else f"within {self.low:+g} and {self.high:+g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One part of a claim: a number of every run, a comparison of arms within a seed, and where that should lie."""

    value: Mapping[str, Any]
    """The number of a run: one of :data:`~dashboards.claims.values.VALUES` with its argument, then options."""
    arms: tuple[str, ...]
    """Arms compared, in the order of the claim."""
    compare: str
    """``value`` of one arm, ``difference`` of two, ``trend`` along three or more, ``peak`` (the arms between the first
    and the last above both), ``interaction`` ((d - c) - (b - a) of four), ``any`` (Friedman's test: arms differ)."""
    region: Region | None
    """Where the compared number should lie; None for ``any``."""

    @property
    def words(self) -> str:
        """For a table: ``policy entropy at the end: four updates - one update, below 0``."""
        text = f"{value_words(self.value)}: {compared_words(self.compare, self.arms)}"
        return f"{text}, {self.region.words}" if self.region else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A statement of the literature with its tests; it is reproduced when all of them are."""

    number: int
    statement: str
    source: str
    arms: Mapping[str, str]
    """Arm -> level of the sweep."""
    tests: tuple[Test, ...]
    caveat: str = ""
    seeds: frozenset[int] | None = None
    """The seeds that it is judged on; None: all."""
    alpha: float = 0.05
    """Level of its tests; lower where it is one of several looks."""

    @property
    def metrics(self) -> set[str]:
        """Metrics that its tests read."""
        return {key for test in self.tests for key in metrics_of(test.value)}


def parse_claim(document: Mapping[str, Any]) -> Claim:
    """The claim of an entry of ``sweep.json``. Raises ValueError with one sentence that names the claim and the key."""
    number, arms = int(document["number"]), {str(arm): str(level) for arm, level in document["arms"].items()}
    try:
        tests = tuple(_test(item, tuple(arms)) for item in document["tests"])
    except ValueError as error:
        raise ValueError(f"claim {number}: {error}") from None
    return Claim(
        number=number,
        statement=str(document["statement"]),
        source=str(document["source"]),
        arms=arms,
        tests=tests,
        caveat=str(document.get("caveat") or ""),
        seeds=frozenset(map(int, document["seeds"])) if document.get("seeds") else None,
        alpha=float(document.get("alpha") or 0.05),
    )


def _test(document: Mapping[str, Any], arms: Sequence[str]) -> Test:
    unknown = set(document) - {"value", "arms", "compare", "expect"}
    if unknown:
        raise ValueError(f"a test has value, arms, compare and expect, not {sorted(unknown)[0]!r}")
    value = document.get("value")
    name = next(iter(value)) if isinstance(value, Mapping) and value else None
    if not isinstance(value, Mapping) or name not in VALUES:
        raise ValueError(f"value begins with one of {', '.join(VALUES)}, not {name or value!r}")
    allowed = VALUES[str(name)].options
    if wrong := sorted(set(value) - {name} - set(allowed)):
        raise ValueError(
            f"value {name} has {'the options ' + ', '.join(allowed) if allowed else 'no options'}, not {wrong[0]!r}"
        )
    chosen = tuple(str(arm) for arm in document.get("arms") or arms)
    if absent := [arm for arm in chosen if arm not in arms]:
        raise ValueError(f"arm {absent[0]!r} is not one of {', '.join(arms)}")
    compare = str(document.get("compare") or {1: "value", 2: "difference"}.get(len(chosen), "trend"))
    if compare not in COMPARISONS:
        raise ValueError(f"compare={compare!r} is not one of {', '.join(COMPARISONS)}")
    least, most = _ARMS[compare]
    if not least <= len(chosen) <= most:
        raise ValueError(
            f"compare={compare} takes {least}{'' if least == most else ' or more'} arms, not {len(chosen)}"
        )
    return Test(value=dict(value), arms=chosen, compare=compare, region=_region(document.get("expect"), compare))


def _region(expect: Any, compare: str) -> Region | None:
    if compare == "any":
        if expect != "differ":
            raise ValueError(f"compare=any expects 'differ', not {expect!r}")
        return None
    if isinstance(expect, str) and expect in DIRECTIONS and compare != "value":
        low, high = DIRECTIONS[expect]
        return Region(low=low, high=high)
    if isinstance(expect, Mapping) and len(expect) == 1:
        word, bound = next(iter(expect.items()))
        if isinstance(bound, int | float) and not isinstance(bound, bool):
            regions = {"above": (bound, math.inf), "below": (-math.inf, bound), "within": (-bound, bound)}
            if word in regions and compare in ("value", "difference"):
                return Region(low=float(regions[word][0]), high=float(regions[word][1]))
    directions = "" if compare == "value" else "increase, decrease"
    bounds = "{above: x}, {below: x} or {within: x}" if compare in ("value", "difference") else ""
    raise ValueError(f"compare={compare} expects {' or '.join(filter(None, [directions, bounds]))}, not {expect!r}")
