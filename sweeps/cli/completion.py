"""Completion in bash, ``eval "$(python sweep.py -sc install=bash)"``: Hydra's script, mended for paths with spaces."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

MENDED = {
    'grep "@hydra.main" $file_path -q': 'grep "hydra" "$file_path" -q',
    "EXECUTABLE=($(command -v $helper))": 'EXECUTABLE=("$(command -v "${helper%% *}")")',
}
"""Lines of Hydra's script that split a path at its spaces, and what they should be."""


@contextmanager
def mended_completion(words: Sequence[str]) -> Iterator[None]:
    """What Hydra prints within, mended if ``words`` ask for the script."""
    if not ({"-sc", "--shell_completion"} & {*words} and "install=bash" in words):
        yield
        return
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        text = printed.getvalue()
        for line, instead in MENDED.items():
            text = text.replace(line, instead)
        print(text, end="")
