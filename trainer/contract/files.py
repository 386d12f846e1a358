"""Atomic writes: a file is complete or absent. A full disk is reported in one sentence.

Used by everything that writes into an output folder. It must not know what is in the files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class OutOfSpace(OSError):
    """The disk or the quota is full. What was on disk before is intact."""


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn a full disk or quota inside the block into :class:`OutOfSpace` naming ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        message = (
            f"no space left to write {error.filename or path}: free some, then start the same command again; "
            "what was saved before is intact"
        )
        raise OutOfSpace(message) from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content`` so that a reader, or a crash, sees the old or the new file whole.

    Once this returns, the new one also survives a power failure.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with room_for(path):
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):  # the folder may have gone, and the first reason is the one to hear
                temporary.unlink()
            raise
        persist(path.parent)


def make_folder(path: Path) -> Path:
    """Make ``path`` with its parents where they are missing, so that their names survive a power failure."""
    missing = [folder for folder in [path, *path.parents] if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        persist(folder.parent)
    return path


def persist(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no fsync for folders
            raise
    finally:
        os.close(descriptor)


def take(handle: IO[str], kind: int = fcntl.LOCK_EX, patience_s: float = 0.0) -> bool:
    """Whether ``flock`` gave the open file ``handle`` within ``patience_s``. The kernel lets go when its holder ends.

    Raises OSError with the file's name where the file system has no locks.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        except OSError as error:
            reason = f"{error.strerror}: its file system has no locks, mount it with flock"
            raise OSError(error.errno, reason, handle.name) from error


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for the lock file ``path`` and hold it within the block."""
    with path.open("a") as handle:
        take(handle, patience_s=float("inf"))
        yield
