"""Parts of a Hydra override (``+optim.lr=1``): its key, its value in Python, and a short form to display."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any


def key_of(override: str) -> str:
    """``+optim.lr=1`` → ``optim.lr``."""
    return override.partition("=")[0].lstrip("+~")


@functools.cache
def parsed(override: str) -> Any:
    """The value of an override as plain Python (shared between calls: read only)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString

    def plain(value: Any) -> Any:
        if isinstance(value, QuotedString):
            return value.text
        if isinstance(value, dict):
            return {str(plain(key)): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return plain(OverridesParser.create().parse_override(override).value())


def value_text(value: Any) -> str:
    """``0.28``, ``true``, ``null``, ``a+b`` for a list, ``positive 1, negative 0`` for a mapping."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{key} {value_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "+".join(map(value_text, value)) or "none"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def short_key(key: str, among: Sequence[str]) -> str:
    """The last part of a dotted key where that is unambiguous."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in among) <= 1 else key


def merged(texts: Sequence[str]) -> list[str]:
    """Overrides without those that a later one of the same key replaces."""
    last = {key_of(text): text for text in texts}
    return [text for text in texts if last[key_of(text)] is text]
