"""The user's cache: where downloaded models and data sets lie, and how a setting names them on any machine.

It must not download anything; :mod:`trainer.downloads` does.
"""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "cache:"
"""A path that starts so is below :func:`cache_folder`: one configuration, and one signature, on every machine."""


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/rlvr-entropy``, by default ``~/.cache/rlvr-entropy``.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG base directory specification asks.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return base / "rlvr-entropy"


def located(path: str) -> Path:
    """The file or folder that a setting names: ``~`` is the home, ``cache:NAME`` is in the cache."""
    if path.startswith(PREFIX):
        return cache_folder() / path.removeprefix(PREFIX)
    return Path(path).expanduser()


def how_to_get(path: str) -> str:
    """What to do about a missing ``cache:`` path, as the end of a sentence; nothing for other paths."""
    if not path.startswith(PREFIX):
        return ""
    target = "real-model" if path.removeprefix(PREFIX).startswith("models/") else "real-data"
    return f": `make {target}` puts it into {located(path)}"
