"""What ``python sweep.py -m study=claims ...`` asks for, parsed from its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep, Sweep

from trainer.contract.settings import ConfigError

DECIDED = "decided"
_OWN = ("study", "claims", "testbed", "until", "hours", "seed", "looks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The settings of one study of claims."""

    numbers: tuple[int, ...]
    """Claims, by number; none: all."""
    testbed: str | None
    """The study whose settings all arms have (``testbed=real``); None: the default run."""
    seeds: tuple[int, ...]
    until: str | None
    """``decided``: seeds are added in looks, for the claims that are not decided."""
    looks: tuple[int, ...]
    """Seeds at each look."""
    hours: float | None
    """Only the cheapest claims that fit into so many hours of jobs, by earlier runs."""
    words: tuple[str, ...]
    """Overrides of all arms."""


def asked(arguments: Sequence[str], defaults: dict[str, Any]) -> Asked:
    """The request in the words of the command line, over the values of ``conf/study/claims.yaml``."""
    overrides = OverridesParser.create().parse_overrides(list(arguments))
    own = {item.key_or_group: _values(item) for item in overrides if item.key_or_group in _OWN}
    for item in overrides:
        if item.key_or_group in ("factor", "search", "method"):
            raise ConfigError(
                f"{item.key_or_group} cannot be set beside study=claims, whose claims choose it: leave it out"
            )
        if item.key_or_group not in _OWN and item.is_sweep_override():
            raise ConfigError(
                f"{item.key_or_group} names several values, but the arms of the claims are the sweep: give one"
            )
    one = {key: own.get(key, [defaults[key]])[-1] for key in ("testbed", "until", "hours")}
    if one["until"] not in (None, DECIDED):
        raise ConfigError(f"until={one['until']} is not known: until={DECIDED}, or leave it out")
    if one["hours"] is not None and not (isinstance(one["hours"], int | float) and one["hours"] > 0):
        raise ConfigError(f"hours={one['hours']} is no number of hours above 0")
    numbers = own.get("claims", [defaults["claims"]])
    return Asked(
        numbers=() if numbers == ["all"] else _whole("claims", numbers),
        testbed=str(one["testbed"]) if one["testbed"] is not None else None,
        seeds=_whole("seed", own["seed"]) if "seed" in own else tuple(defaults["seeds"]),
        until=one["until"],
        looks=_whole("looks", own.get("looks", defaults["looks"])),
        hours=one["hours"],
        words=tuple(str(item.input_line) for item in overrides if item.key_or_group not in _OWN),
    )


def _values(item: Override) -> list[Any]:
    value = item.value()
    if isinstance(value, RangeSweep):
        return list(value.range())
    if isinstance(value, Sweep):
        return list(getattr(value, "list", []))
    return list(value) if isinstance(value, list) else [value]


def _whole(key: str, values: Sequence[Any]) -> tuple[int, ...]:
    if wrong := [value for value in values if isinstance(value, bool) or not isinstance(value, int)]:
        raise ConfigError(f"{key}={wrong[0]} is no whole number: give for example {key}=1,3")
    return tuple(dict.fromkeys(values))
