"""Turns an error of MLflow, SQLAlchemy or the network into one line that names the cause.

Used wherever such an error is shown: the first line of the error itself often leaves the cause out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainer.contract.settings import ConfigError

LENGTH = 300
"""Characters."""

NOISE = re.compile(r"^\(?(raised as a result of|Background on this error)|^\[(SQL|parameters): |^$")
"""Lines that say nothing of the cause; SQLAlchemy puts the first kind before it."""

CAUSE = re.compile(r"\[Errno -?\d+\] ([^'\")\]]+)|[Rr]ead timed out[^'\")]*|timed out")
"""What the innermost of nested network errors says."""


def reason(error: BaseException) -> str:
    """The cause of ``error``, one line."""
    if isinstance(error, ConfigError):  # a sentence of ours
        return " ".join(str(error).split())
    lines = [line.strip() for line in str(error).splitlines()]
    line = next((line for line in lines if not NOISE.search(line)), "") or type(error).__name__
    cause = CAUSE.findall(line) and CAUSE.search(line)
    if (cause and "://" in line) or "HTTPConnectionPool" in line:
        where = re.search(r"https?://[^\s'\"/]+|host='[^']+', port=\d+", line)
        detail = (cause[1] or cause[0]).strip() if cause else "no answer"
        return f"{where[0] if where else 'the server'}: {detail}"[:LENGTH]
    plain = re.sub(r"^\((?:\w+\.)+(\w+)\) ", "", line)
    message = plain if plain != line else f"{type(error).__name__}: {plain}"
    return message[:LENGTH]


def causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what led to it, the innermost last."""
    visited = set[int]()
    current: BaseException | None = error
    while current is not None and id(current) not in visited:
        visited.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_unreachable(error: BaseException) -> bool:
    """Whether a server did not answer, so that asking again at once is of no use."""
    return any(isinstance(cause, ConnectionError | TimeoutError) for cause in causes(error)) or any(
        type(cause).__module__.startswith(("requests.", "urllib")) for cause in causes(error)
    )


def unusable(error: OSError) -> str:
    """A sentence that names the file which cannot be used, and why."""
    if error.strerror is None:  # one of ours, which says all
        return str(error)
    where = error.filename or "a file or process that this needs"
    return f"{where} cannot be used ({error.strerror}): mend it, move it away, or choose another output"
