"""Precedence: a group or value chosen on the command line wins over what a preset (method, factor, study) sets.

A preset (``method``, ``study``, ``factor``) is a bundle of choices and values. Hydra lets choices of the command line
win over those of a preset, but would put a preset's *values* on top of whatever was chosen: ``study=smoke
evaluation=none`` would evaluate, ``method=siren surrogate=gspo`` would clip whole responses at 0.28. Used wherever
something is composed. A ``clip_regime`` is a short name for two values, and is kept as these are.
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
    """Groups that the command line chooses, and the values of presets that were left out for it."""

    groups: frozenset[str] = frozenset()
    left_out: dict[str, None] = field(default_factory=dict)
    """Sentences, each once."""


_CHOSEN: ContextVar[Chosen] = ContextVar("chosen")


def chosen_groups(overrides: Sequence[str]) -> frozenset[str]:
    """Groups of components that ``overrides`` choose: ``surrogate=gspo``, not ``surrogate.clip_low=0.1``."""
    words = [text.lstrip("+").partition("=") for text in overrides]
    return frozenset(key for key, _, value in words if key in COMPONENTS and not value.startswith("{"))


@contextmanager
def choosing(overrides: Sequence[str]) -> Iterator[Chosen]:
    """While composing ``overrides``, presets leave alone what they choose."""
    chosen = Chosen(chosen_groups(overrides))
    token = _CHOSEN.set(chosen)
    try:
        yield chosen
    finally:
        _CHOSEN.reset(token)


def left_out() -> tuple[str, ...]:
    """What presets did not change while this was composed, a sentence for each."""
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
