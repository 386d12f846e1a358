"""Quotes string values that Hydra would parse as numbers or booleans: ``study.name=1_000``, ``model.revision=38930e8``.

Whether a setting is a string is read from its annotation.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from sweeps.compose.components import PROJECT_PREFIXES
from sweeps.compose.compose import CONF
from sweeps.compose.overrides import parsed
from trainer.contract.component_source import component_defaults, text_settings
from trainer.contract.config import LIST_SLOTS

_WORDS = re.compile(r"[\w.+:-]+(?:,[\w.+:-]+)*")
"""A value without quotes, brackets and spaces, or several of them."""


def quote_strings(word: str) -> str:
    """An argument of the command line, with quotes around strings that look like numbers, booleans or null."""
    key, equals, value = word.partition("=")
    if not equals or not _WORDS.fullmatch(value) or not is_string(key.lstrip("+")):
        return word
    return f"{key}={','.join(_quoted(text) for text in value.split(','))}"


def is_string(key: str) -> bool:
    """Whether the setting at a dotted key is a string, or an entry of a mapping to strings, in every choice that has
    it."""
    group, _, rest = key.partition(".")
    setting = (rest.partition(".")[2] if group in LIST_SLOTS else rest).partition(".")[0]
    kinds = [setting in text_settings(target) for target, fields in _targets(group) if setting in fields]
    return key == "study.name" or (bool(kinds) and all(kinds))


def _quoted(text: str) -> str:
    value: Any = parsed(f"x={text}")
    return text if value is None or isinstance(value, str) else f"'{text}'"


@functools.cache
def _targets(group: str) -> list[tuple[str, tuple[str, ...]]]:
    """The components of a group with the names of their settings."""
    return list(_components(group))


def _components(group: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for path in sorted((CONF / group).glob("*.yaml")) if group.isidentifier() else []:
        document = yaml.safe_load(path.read_text())
        target = document.get("_target_") if isinstance(document, dict) else None
        if isinstance(target, str) and target.startswith(PROJECT_PREFIXES):
            yield target, tuple(component_defaults(target))
