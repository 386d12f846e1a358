"""Folders of the cache, written atomically, with a record of where their files came from.

``SOURCE.json`` holds the pinned requirement and the SHA-256 of every file, so that a second call knows that there is
nothing to do and a damaged folder is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from trainer.contract.files import alone, make_folder, persist, room_for

SOURCE = "SOURCE.json"


def made_once(folder: Path, requirement: str, note: str, make: Callable[[Path], None]) -> bool:
    """Fill ``folder`` by ``make(temporary folder)`` unless it is whole and from ``requirement``; whether that was done.

    ``note`` says in one sentence what the files are. Two processes do not do it twice.
    """
    make_folder(folder.parent)
    with alone(folder.parent / f".{folder.name}.lock"):
        if is_whole(folder, requirement):
            return False
        temporary = folder.with_name(f".tmp-{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with room_for(folder):
                temporary.mkdir()
                make(temporary)
                _sign(temporary, requirement, note)
                shutil.rmtree(folder, ignore_errors=True)
                temporary.rename(folder)
                persist(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return True


def is_whole(folder: Path, requirement: str) -> bool:
    """Whether every file that ``SOURCE.json`` lists is there as it was made, from the same requirement."""
    try:
        source = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        same = {name: digest(folder / name) for name in source["sha256"]} == source["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(same and source["requirement"] == requirement)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sign(folder: Path, requirement: str, note: str) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {str(path.relative_to(folder)): digest(path) for path in files}
    record = {"note": note, "requirement": requirement, "sha256": hashes}
    (folder / SOURCE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path in (*files, folder / SOURCE, folder):
        persist(path)
