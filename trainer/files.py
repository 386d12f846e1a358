"""Files that are whole or not there, and one word for a full disk.

Used by everything of the trainer that writes. It must not know what is in the files, and must never leave half of one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutOfSpace(OSError):
    """The disk or the quota is full. What was on disk before is intact."""


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn a full disk or quota inside the block into :class:`OutOfSpace` naming ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = (
            f"no space left to write {path}: free some, then start the run again; it goes on from its last checkpoint"
        )
        raise OutOfSpace(message) from error


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` so that a reader, or a crash, sees the old or the new file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with room_for(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def persist(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
