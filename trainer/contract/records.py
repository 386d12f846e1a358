"""Files of JSON lines in step order (``metrics.jsonl`` and others): appending to them, and reading them as they grow.

Written by the trainer, read by everything that shows or copies a run. An incomplete last line is still being
written and is left out; a line that was damaged later is an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.contract.files import room_for
from trainer.contract.settings import ConfigError


class DamagedRecord(ConfigError):
    """A line that was whole once and cannot be read any more."""


def append_records(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Add one line of standard JSON per record, all or none.

    Keys are sorted and floats are their shortest exact form, so equal records are equal bytes. What is written survives
    the death of the process; to survive that of the machine takes ``fsync``, which costs a thousand times more.
    """
    lines = "".join(
        json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n" for record in records
    )
    data = memoryview(lines.encode())
    with room_for(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            start = os.fstat(descriptor).st_size
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except OSError:
                os.ftruncate(descriptor, start)
                raise
        finally:
            os.close(descriptor)


def read_records(path: Path, *, offset: int = 0, until: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """Records of whole lines from byte ``offset`` on, and the offset behind the last of them.

    Ends at a torn line and before the first record whose ``step`` is above ``until``. A file that is not there is
    empty; one that became shorter, because the run went back, is read on from its end. Raises :class:`DamagedRecord`.
    """
    records: list[dict[str, Any]] = []
    for line, start in _lines(path, offset):
        record = _parse(line)
        if record is None:
            number = path.read_bytes()[:start].count(b"\n") + 1
            raise DamagedRecord(
                f"{path} is damaged in line {number}: restore it, or move the run folder away and start the same "
                "command again"
            )
        if until is not None and record["step"] > until:
            return records, start
        records.append(record)
        offset = start + len(line)
    return records, min(offset, path.stat().st_size if path.exists() else 0)


def length_until(path: Path, step: int) -> tuple[int, int]:
    """Bytes up to the last record that is whole and not after ``step``, and the step of that record (-1: none)."""
    length, last = 0, -1
    for line, start in _lines(path, 0):
        record = _parse(line)
        if record is None or record["step"] > step:
            break
        length, last = start + len(line), record["step"]
    return length, last


def _lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Lines that have an end, and where each begins, from the first that begins at ``offset`` or later."""
    if not path.exists():
        return
    with path.open("rb") as file:
        if offset:
            file.seek(offset - 1)
            offset += len(file.readline()) - 1  # 0 unless the file was cut and written anew
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line, offset
            offset += len(line)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None
