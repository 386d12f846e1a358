"""Disks that are really full. Used by tests of checkpoints and of whole runs; it must not leave a mount behind."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of ``size`` (``1m``) at ``place``; the test is skipped where none can be mounted."""
    place.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command for a disk that can be filled")
    if mounted.returncode:
        pytest.skip(f"cannot mount a disk that can be filled: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        gc.collect()  # a raised error keeps the frames, and with them memory-mapped weights, until it is collected
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, free: int) -> Path:
    """A file that leaves ``free`` bytes of ``disk``; removing it makes room again."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - free)
    return ballast
