"""Finds and kills all processes of a job through ``/proc``, also those that have another parent or session by now.

A process group is not enough, because ``accelerate launch`` gives every rank a session of its own. So each job has a
mark in an environment variable, which all of its processes inherit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "RLVR_SWEEP_JOB"
"""Environment variable with the name of the job that a process belongs to."""


def marked(name: str) -> list[int]:
    """Processes of this user with the mark ``name``, except this one."""
    entry = f"{MARK}={name}".encode()
    pids = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if entry in (folder / "environ").read_bytes().split(b"\0") and not _is_zombie(folder):
                pids.append(int(folder.name))
    return pids


def children(parent: int) -> list[int]:
    """Processes whose parent is ``parent``."""
    pids = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int(_fields(folder)[1]) == parent:
                pids.append(int(folder.name))
    return pids


def kill_marked(name: str, patience_s: float = 5.0) -> None:
    """Send SIGKILL to all processes with the mark, repeatedly, because a fork may be under way."""
    end = time.monotonic() + patience_s
    while (found := marked(name)) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _is_zombie(folder: Path) -> bool:
    return _fields(folder)[0] == "Z"


def _fields(folder: Path) -> list[str]:
    """State, parent, group, session, ... of a process: what follows its name, which may hold anything."""
    return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
