"""Rows of a JSONL file of questions and answers, each looked at before anything is queued.

:func:`sift` is for whoever has a further condition on prompts, such as their length in tokens. It must not change a
row: what cannot be used is refused, or left out when the user asks for that.
"""

from __future__ import annotations

import codecs
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from trainer.batch.types import Prompt

BadRows = Literal["refuse", "drop"]
SHOWN = 5
"""Lines and reasons named in a sentence; the rest is counted."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One usable line."""

    line: int
    question: str
    answer: str
    solution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Why a line cannot be used."""

    line: int
    reason: str


class BadRow(ValueError):
    """The reason, without file and line."""


def read_rows(
    file: str, fields: tuple[str, str, str], check: Callable[[str], str | None]
) -> tuple[list[Row], list[Flaw]]:
    """Usable and unusable rows of a UTF-8 file with one JSON object a line; blank lines are skipped.

    ``fields`` name question, answer and solution; ``check`` says why a correct answer can never be given, if so. Raises
    ValueError with file and line for another encoding.
    """
    rows: list[Row] = []
    flaws: list[Flaw] = []
    first: dict[str, Row] = {}
    with open(file, "rb") as lines:
        for number, raw in enumerate(lines, start=1):
            text = _decoded(raw, file, number)
            if not text.strip():
                continue
            try:
                row = _row(number, text, fields, check)
                earlier = first.setdefault(row.question, row)
                if earlier.answer != row.answer:
                    raise BadRow(f"{fields[0]} occurs before with another {fields[1]}")
                rows.append(row)
            except BadRow as error:
                flaws.append(Flaw(line=number, reason=str(error)))
    return rows, flaws


def _decoded(raw: bytes, file: str, number: int) -> str:
    try:
        return raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"task math: {file}, line {number} is not UTF-8 (byte 0x{raw[error.start]:02x} at position "
            f"{error.start + 1}); save the file as UTF-8"
        ) from error


def _row(number: int, text: str, fields: tuple[str, str, str], check: Callable[[str], str | None]) -> Row:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):  # a number of 5000 digits is a ValueError of its own
        record = None
    if not isinstance(record, dict):
        raise BadRow("not a JSON object")
    question, answer, solution = fields
    found = Row(
        line=number,
        question=_text(record, question, numbers=False),
        answer=_text(record, answer),
        solution=None if record.get(solution) in (None, "") else _text(record, solution),
    )
    reason = check(found.answer)
    if reason is not None:
        raise BadRow(f"{answer} {reason}")
    return found


def _text(record: dict[str, Any], field: str, *, numbers: bool = True) -> str:
    """The field as text; a number only where ``numbers``, in the digits of the file."""
    if field not in record:
        raise BadRow(f"no field {field!r}")
    value = record[field]
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise BadRow(f"{field} is not finite")
        return str(value) if isinstance(value, int) else f"{Decimal(repr(value)):f}"
    if not isinstance(value, str):
        raise BadRow(f"{field} is {_kind(value)}, not text")
    if not value.strip():
        raise BadRow(f"{field} is empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRow(f"{field} holds half a character (a lone surrogate)")
    return value


def _kind(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        return "a list of messages"
    return {type(None): "null", bool: "true or false", list: "a list", dict: "an object"}.get(type(value), "a number")


def kept(file: str, rows: Sequence[Row], flaws: Sequence[Flaw], bad_rows: BadRows) -> list[Row]:
    """The usable rows; with ``refuse``, ValueError if there are others, in one sentence with file, lines and counts."""
    if flaws and bad_rows == "refuse":
        raise ValueError(
            f"task math: {summary(file, flaws, len(rows) + len(flaws))}; mend them, set task.question_field and "
            "task.answer_field, or leave them out with task.bad_rows=drop"
        )
    if not rows:
        raise ValueError(f"task math: {file} holds no usable question; put one JSON object on each line")
    return list(rows)


def summary(file: str, flaws: Sequence[Flaw], count: int) -> str:
    """``FILE: 3 of 80 rows cannot be used: answer is null (lines 3, 9), question is empty (line 12)``."""
    lines: dict[str, list[int]] = {}
    for flaw in flaws:
        lines.setdefault(flaw.reason, []).append(flaw.line)
    reasons = [f"{reason} ({numbered(found)})" for reason, found in list(lines.items())[:SHOWN]]
    if len(lines) > SHOWN:
        reasons.append(f"{len(lines) - SHOWN} more reasons")
    return f"{file}: {len(flaws)} of {count} rows cannot be used: {', '.join(reasons)}"


def numbered(lines: Sequence[int]) -> str:
    """``line 3``, ``lines 3, 9`` or ``lines 1, 2, 3, 4, 5 and 12 more``."""
    shown = ", ".join(map(str, lines[:SHOWN]))
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {shown}{more}"


def sift(prompts: Iterable[Prompt], flaw: Callable[[Prompt], str | None], bad_rows: BadRows) -> list[Prompt]:
    """The prompts for which ``flaw`` gives no reason; the others are refused together or left out, by ``bad_rows``.

    For conditions that need more than the file, such as ``"question takes 5000 tokens, the context holds 4096"``.
    """
    found: list[Prompt] = []
    flaws: dict[str, list[Flaw]] = {}
    files: dict[str, int] = {}
    for prompt in prompts:
        file, _, line = str(prompt.data.get("where", f"task:{prompt.id.rpartition('-')[2]}")).rpartition(":")
        files[file] = files.get(file, 0) + 1
        reason = flaw(prompt)
        if reason is None:
            found.append(prompt)
        else:
            flaws.setdefault(file, []).append(Flaw(line=int(line), reason=reason))
    sentences = [summary(file, rows, files[file]) for file, rows in flaws.items()]
    if sentences and (bad_rows == "refuse" or not found):
        raise ValueError(f"task math: {'; '.join(sentences)}; mend them or leave them out with task.bad_rows=drop")
    for sentence in sentences:
        log.warning("task math: %s; left out (task.bad_rows=drop)", sentence)
    return found
