"""``python -m sweeps attach|resume|retry|plan`` for a search: runs its command line again, which resumes it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from sweeps.cli.command import main
from sweeps.grid.sweep import Document
from sweeps.search.space import override

INVOCATION = ("output=", "plan=", "yes=")
"""Overrides of the original command line that are replaced."""


def resume_search(output: Path, document: Document, *, plan: bool, yes: bool) -> int:
    """Start the search of a ``sweep.json``; the exit code of ``sweep.py``."""
    words = [word for word in shlex.split(document["command"])[2:] if not word.startswith(INVOCATION)]
    words += [override("output", str(output))] + ["plan=true"] * plan + ["yes=true"] * yes
    sys.argv = ["sweep.py", *words]
    try:
        return main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
