"""The manifest of a checkpoint: written last, it names every file that a run resumes from, with size and checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from trainer.contract.files import persist

MANIFEST = "manifest.json"


class DamagedCheckpoint(Exception):
    """A checkpoint that is torn or whose bytes have changed; the message is a clause that says in what."""


class Entry(TypedDict):
    """What is known of a file."""

    sha256: str
    size: int


def entry(path: Path) -> Entry:
    """Flush a file to the disk; its checksum and size."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": file.tell()}


def write_manifest(folder: Path, content: Mapping[str, Any], files: Mapping[str, Entry]) -> None:
    """Vouch for ``files``, which are on the disk, for ``content``, and for the manifest's own bytes."""
    content = {**content, "files": dict(sorted(files.items()))}
    with (folder / MANIFEST).open("w", encoding="utf-8") as file_out:
        json.dump(content | {"digest": _digest(content)}, file_out, indent=1)
        file_out.flush()
        os.fsync(file_out.fileno())
    persist(folder)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest, if it is whole and every file has its size; else :class:`DamagedCheckpoint`."""
    try:
        content = json.loads((path / MANIFEST).read_bytes())
        digest = content.pop("digest")
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{MANIFEST} is missing") from error
    except OSError as error:
        raise DamagedCheckpoint(f"{MANIFEST} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedCheckpoint(f"{MANIFEST} cannot be read") from error
    if digest != _digest(content):
        raise DamagedCheckpoint(f"{MANIFEST} does not have its checksum")
    for name, known in content["files"].items():
        try:
            size = (path / name).stat().st_size
        except FileNotFoundError as error:
            raise DamagedCheckpoint(f"{name} is missing") from error
        except OSError as error:
            raise DamagedCheckpoint(f"{name} cannot be read: {error.strerror}") from error
        if size != known["size"]:
            raise DamagedCheckpoint(f"{name} has {size} bytes instead of {known['size']}")
    return dict(content)


def verified(path: Path) -> dict[str, Any]:
    """:func:`read_manifest`, and every byte is as it was written."""
    manifest = read_manifest(path)
    for name, known in manifest["files"].items():
        try:
            with (path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:  # a bad sector, most likely
            raise DamagedCheckpoint(f"{name} cannot be read: {error.strerror}") from error
        if digest != known["sha256"]:
            raise DamagedCheckpoint(f"{name} does not have its checksum")
    return manifest
