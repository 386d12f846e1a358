"""Precedence: a group or value chosen on the command line wins over what a preset (method, factor, study) sets.

A preset is a YAML that sets choices and values of several groups. Hydra lets choices of the command line win over those
of a preset, but would apply a preset's *values* to whatever was chosen: ``study=smoke evaluation=none`` would evaluate,
``method=siren surrogate=gspo`` would clip whole responses at 0.28. Here such values are dropped. A ``clip_regime`` is
only a short name for two values, and always applies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from trainer.contract.config import LIST_SLOTS, PLAIN_GROUPS, SINGLE_SLOTS

COMPONENTS = frozenset({*SINGLE_SLOTS, *LIST_SLOTS, *PLAIN_GROUPS, "launcher"})
"""Groups of components; every other group holds presets of several of these."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Groups chosen on the command line, and warnings about the values of presets that were dropped for them."""

    groups: frozenset[str] = frozenset()
    left_out: dict[str, None] = field(default_factory=dict)
    """Warnings, as the keys of a dictionary: each once, in order."""


_CHOSEN: ContextVar[Chosen] = ContextVar("chosen")


def chosen_groups(overrides: Sequence[str]) -> frozenset[str]:
    """Groups of components that ``overrides`` choose: ``surrogate=gspo``, not ``surrogate.clip_low=0.1``."""
    words = [text.lstrip("+").partition("=") for text in overrides]
    return frozenset(key for key, _, value in words if key in COMPONENTS and not value.startswith("{"))


@contextmanager
def choosing(overrides: Sequence[str]) -> Iterator[Chosen]:
    """While this is open, presets set no values in groups that ``overrides`` choose."""
    chosen = Chosen(chosen_groups(overrides))
    token = _CHOSEN.set(chosen)
    try:
        yield chosen
    finally:
        _CHOSEN.reset(token)


def left_out() -> tuple[str, ...]:
    """Warnings about values of presets that were dropped in the composition that is under way."""
    return tuple(_CHOSEN.get(Chosen()).left_out)


def without_chosen(path: str, preset: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the preset at ``path`` (``method/siren``) without values of groups that were chosen."""
    if path.startswith("clip_regime/"):
        return dict(preset)
    chosen = _CHOSEN.get(Chosen())
    dropped = [key for key in preset if key in chosen.groups]
    for group in dropped:
        names = ", ".join(f"{group}.{name}" for name in _leaves(preset[group]))
        if names:
            chosen.left_out[f"{group} was chosen, so what {path.replace('/', '=', 1)} says of {names} is left out"] = (
                None
            )
    return {key: value for key, value in preset.items() if key not in dropped}


def _leaves(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, Mapping) else ():
        yield from (f"{key}.{name}" for name in _leaves(value)) if isinstance(value, Mapping) else (str(key),)
