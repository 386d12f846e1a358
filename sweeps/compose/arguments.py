"""Checks the arguments of the command line one by one, before Hydra composes anything.

Whole configurations are checked in :mod:`sweeps.grid.problems`, values by the trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, QuotedString, RangeSweep, Sweep

from sweeps.compose.compose import groups
from sweeps.compose.presets import COMPONENTS
from trainer.contract.config import LIST_SLOTS
from trainer.contract.settings import ConfigError, nearest


def check_arguments(words: Sequence[str]) -> None:
    """Raise :class:`ConfigError` with a line for each argument that cannot be used; Hydra's errors for its grammar."""
    known, unknown = get_args_parser().parse_known_args(list(words))
    problems = [f"{word} is no option: settings have no dashes in front, KEY=VALUE" for word in unknown]
    overrides = OverridesParser.create().parse_overrides(known.overrides)
    choices = groups()
    for override in overrides:
        problems += _problems(override, choices)
    for key in dict.fromkeys(item.key_or_group for item in overrides if item.key_or_group in choices):
        values = (str(item.input_line).partition("=")[2] for item in overrides if item.key_or_group == key)
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            problems.append(f"{key} is chosen several times ({' and '.join(distinct)}): leave one of them")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def _problems(override: Override, choices: dict[str, list[str]]) -> Iterator[str]:
    key = override.key_or_group
    if key.startswith(("hydra.run", "hydra.sweep.", "hydra/")) or key == "hydra.output_subdir":
        yield (
            f"{override.input_line} cannot be used: runs are queued by sweep.py itself, in folders named by their "
            "content; choose their place with output=FOLDER"
        )
    values = _values(override, choices)
    if not values:
        yield f"{override.input_line} is empty, so there is nothing to run: give at least one value"
    if key in choices and not override.is_delete():
        for value in values:
            yield from _wrong_choice(key, value, choices[key])


def _values(override: Override, choices: dict[str, list[str]]) -> list[Any]:
    """The values of an override: all those of a sweep (``seed=0,1``), or the one it has."""
    value = override.value()
    if isinstance(value, Glob):
        names = choices.get(override.key_or_group, [])
        return list(value.filter([name for name in names if "/" not in name]))
    if isinstance(value, RangeSweep):
        return list(value.range())
    if isinstance(value, Sweep):
        return list(getattr(value, "list", [value]))
    return [value]


def _wrong_choice(key: str, value: Any, choices: Sequence[str]) -> Iterator[str]:
    """What is wrong with ``value`` as the choice of a group."""
    if isinstance(value, dict):
        if key not in COMPONENTS:
            yield f"{key} takes a name: {nearest('', choices)}"
        return
    if isinstance(value, list) and key not in LIST_SLOTS:
        first = _text(value[0]) if value else choices[0]
        yield f"{key} takes one choice and no list: {key}={first}"
        return
    names = [_text(item) for item in value] if isinstance(value, list) else [_text(value)]
    if len(set(names)) < len(names):
        yield f"{key}=[{','.join(names)}] names one choice twice: leave one of them out"
    for name in names:
        if name in ("", "null"):
            yield f"{key} is left empty: {nearest('', choices)}, or leave it out"
        elif name not in choices and "${" not in name:
            yield f"{key}={name} does not exist: {nearest(name, choices)}"


def _text(value: Any) -> str:
    if isinstance(value, QuotedString):
        return str(value.text)
    return "null" if value is None else str(value)
