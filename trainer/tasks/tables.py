"""Rows of a table as plain mappings: JSON lines, CSV and Parquet files, and data sets of the hub.

A source is a path (``~`` and ``cache:`` allowed) or ``hub:OWNER/NAME[/CONFIGURATION][:SPLIT]``. It must not know what
the columns mean. Nothing of a data set runs: the ``datasets`` library knows no loading scripts any more.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.contract.cache import how_to_get, located
from trainer.contract.files import OutOfSpace, room_for

_NAME = r"\w[\w.-]*"
HUB = re.compile(rf"hub:({_NAME}/{_NAME})(?:/({_NAME}))?(?::({_NAME}))?")
MISSING = object()
"""What :func:`column` gives for a column that is not there."""


def require_source(source: str) -> None:
    """Raise ValueError with one sentence unless ``source`` is a file or the address of a data set of the hub."""
    if source.startswith("hub:"):
        if HUB.fullmatch(source) is None:
            raise ValueError(f"{source!r} is no data set of the hub: write hub:OWNER/NAME/CONFIG:SPLIT")
    elif not located(source).is_file():
        remedy = how_to_get(source) or "; set task.path and task.suite_paths to JSON-lines, CSV or Parquet files"
        raise ValueError(f"{source} is not a file{remedy}")


def unit(source: str) -> str:
    """What the numbers of :func:`records` count: lines of a text file, else rows."""
    return "row" if source.startswith("hub:") or source.endswith((".parquet", ".csv")) else "line"


def records(source: str, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and content of every row; a line that is no JSON object is None.

    Only ``columns`` and ``optional`` are needed of each row (see :func:`column`). Raises ValueError with one sentence
    for a file that cannot be read and for a table without one of ``columns``.
    """
    if source.startswith("hub:"):
        yield from enumerate(_from_hub(source, columns, optional), start=1)
    elif source.endswith(".parquet"):
        yield from enumerate(_from_parquet(source, columns, optional), start=1)
    elif source.endswith(".csv"):
        yield from enumerate(_from_csv(source, columns), start=1)
    else:
        yield from _from_lines(source)


def column(record: dict[str, Any], name: str) -> Any:
    """A column by name; ``a.b`` is ``b`` in the mapping ``a``, ``a.0`` the first item of the list ``a``.

    :data:`MISSING` where there is none.
    """
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def _from_lines(source: str) -> Iterator[tuple[int, Any]]:
    with located(source).open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            text = _decoded(raw, source, number)
            if text.strip():
                yield number, _parsed(text)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):  # a number of 5000 digits is a ValueError of its own
        return None
    return record if isinstance(record, dict) else None


def _decoded(raw: bytes, source: str, number: int) -> str:
    try:
        return raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source}, line {number} is not UTF-8 (byte 0x{raw[error.start]:02x} at position "
            f"{error.start + 1}); save the file as UTF-8"
        ) from error


def _from_csv(source: str, columns: Sequence[str]) -> Iterator[Any]:
    """Rows with the names of the first one; every value is a text, a column that a short row lacks is None."""
    csv.field_size_limit(2**31 - 1)
    with located(source).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            _require_columns(source, reader.fieldnames or (), columns)
            yield from reader
        except UnicodeDecodeError as error:
            raise ValueError(f"{source} is not UTF-8 after row {reader.line_num}; save it as UTF-8") from error
        except csv.Error as error:
            raise ValueError(f"{source} cannot be read as CSV (line {reader.line_num}: {error})") from error


def _from_parquet(source: str, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Any]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(located(source))
    except (OSError, pyarrow.ArrowException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{source} cannot be read as Parquet: {reason}") from error
    names = file.schema_arrow.names
    _require_columns(source, names, columns)
    for batch in file.iter_batches(batch_size=1024, columns=_needed(names, columns, optional)):
        yield from batch.to_pylist()


def _from_hub(source: str, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Any]:
    import datasets

    match = HUB.fullmatch(source)
    assert match is not None
    name, configuration, split = match.groups()
    try:
        with room_for(Path(datasets.config.HF_DATASETS_CACHE)):
            table = datasets.load_dataset(name, configuration, split=split or "train")
    except OutOfSpace:
        raise
    except Exception as error:  # of the hub, of the network, of a reader of one of a dozen formats
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{source} could not be brought from the hub: {reason}; "
            "download it where there is a network, or give a local JSON-lines, CSV or Parquet file"
        ) from error
    _require_columns(source, table.column_names, columns)
    yield from table.select_columns(_needed(table.column_names, columns, optional))


def _needed(names: Sequence[str], columns: Sequence[str], optional: Sequence[str]) -> list[str]:
    needed = {name if name in names else name.split(".")[0] for name in (*columns, *optional)}
    return [name for name in names if name in needed]


def _require_columns(source: str, names: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in names and name.split(".")[0] not in names]
    if missing:
        raise ValueError(
            f"{source} has no column {missing[0]!r}: it has {', '.join(names) or 'none'}; set the task's settings that "
            "end on _field"
        )
