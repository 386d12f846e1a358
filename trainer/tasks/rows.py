"""Rows of a table of questions and answers, each looked at before anything is queued.

:func:`sift` is for whoever has a further condition on prompts, such as their length in tokens. It must not change a
row: what cannot be used is refused, or left out when the user asks for that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from trainer.batch.types import Prompt
from trainer.tasks.tables import MISSING, column, records, unit

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
    source: str, fields: tuple[str, str, str], check: Callable[[str], str | None]
) -> tuple[list[Row], list[Flaw]]:
    """Usable and unusable rows of a table (:mod:`trainer.tasks.tables`); blank lines of a text file are skipped.

    ``fields`` name question, answer and solution; ``check`` says why a correct answer can never be given, if so. Raises
    ValueError with one sentence for a file that cannot be read and a table that lacks a column.
    """
    rows: list[Row] = []
    flaws: list[Flaw] = []
    first: dict[str, Row] = {}
    for number, record in records(source, fields[:2], fields[2:]):
        try:
            row = _row(number, record, fields)
            earlier = first.get(row.question)
            if earlier is None and (reason := check(row.answer)) is not None:
                raise BadRow(f"{fields[1]} {reason}")
            earlier = first.setdefault(row.question, row)
            if earlier.answer != row.answer:
                raise BadRow(f"{fields[0]} occurs before with another {fields[1]}")
            again = replace(earlier, line=number)  # shares its texts: some data sets hold every row a hundred times
            rows.append(again if again == row else row)
        except BadRow as error:
            flaws.append(Flaw(line=number, reason=str(error)))
    return rows, flaws


def without_repeats(rows: Sequence[Row]) -> list[Row]:
    """The first row of each question."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.question, row)
    return list(first.values())


def _row(number: int, record: dict[str, Any] | None, fields: tuple[str, str, str]) -> Row:
    if record is None:
        raise BadRow("not a JSON object")
    question, answer, solution = fields
    return Row(
        line=number,
        question=_text(record, question, numbers=False),
        answer=_text(record, answer),
        solution=None if column(record, solution) in (MISSING, None, "") else _text(record, solution),
    )


def _text(record: dict[str, Any], field: str, *, numbers: bool = True) -> str:
    """The field as text; a number only where ``numbers``, in the digits of the file."""
    value = column(record, field)
    if value is MISSING:
        raise BadRow(f"no field {field!r} among {', '.join(map(repr, list(record)[:SHOWN])) or 'none'}")
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


def usable_rows(file: str, rows: Sequence[Row], flaws: Sequence[Flaw], bad_rows: BadRows) -> list[Row]:
    """The usable rows; with ``refuse``, ValueError if there are others, in one sentence with file, lines and counts."""
    if flaws and bad_rows == "refuse":
        raise ValueError(
            f"task math: {summary(file, flaws, len(rows) + len(flaws))}; mend them, set task.question_field and "
            "task.answer_field, or leave them out with task.bad_rows=drop"
        )
    if not rows:
        why = summary(file, flaws, len(flaws)) if flaws else f"{file} is empty"
        raise ValueError(f"task math: {file} holds no usable question ({why}); give a file that has some")
    return list(rows)


def summary(file: str, flaws: Sequence[Flaw], count: int) -> str:
    """``FILE: 3 of 80 rows cannot be used: answer is null (lines 3, 9), question is empty (line 12)``."""
    lines: dict[str, list[int]] = {}
    for flaw in flaws:
        lines.setdefault(flaw.reason, []).append(flaw.line)
    reasons = [f"{reason} ({numbered(numbers, unit(file))})" for reason, numbers in list(lines.items())[:SHOWN]]
    if len(lines) > SHOWN:
        reasons.append(f"{len(lines) - SHOWN} more reasons")
    return f"{file}: {len(flaws)} of {count} rows cannot be used: {', '.join(reasons)}"


def numbered(lines: Sequence[int], unit: str = "line") -> str:
    """``line 3``, ``lines 3, 9`` or ``lines 1, 2, 3, 4, 5 and 12 more``."""
    listed = ", ".join(map(str, lines[:SHOWN]))
    remainder = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"{unit if len(lines) == 1 else unit + 's'} {listed}{remainder}"


def sift(prompts: Iterable[Prompt], flaw: Callable[[Prompt], str | None], bad_rows: BadRows) -> list[Prompt]:
    """The prompts for which ``flaw`` gives no reason; the others are refused together or left out, by ``bad_rows``.

    For conditions that need more than the file, such as ``"question takes 5000 tokens, the context holds 4096"``.
    """
    usable: list[Prompt] = []
    flaws: dict[str, list[Flaw]] = {}
    files: dict[str, int] = {}
    for prompt in prompts:
        file, _, line = str(prompt.data.get("where", f"task:{prompt.id.rpartition('-')[2]}")).rpartition(":")
        files[file] = files.get(file, 0) + 1
        reason = flaw(prompt)
        if reason is None:
            usable.append(prompt)
        else:
            flaws.setdefault(file, []).append(Flaw(line=int(line), reason=reason))
    sentences = [summary(file, rows, files[file]) for file, rows in flaws.items()]
    if sentences and (bad_rows == "refuse" or not usable):
        raise ValueError(f"task math: {'; '.join(sentences)}; mend them or leave them out with task.bad_rows=drop")
    for sentence in sentences:
        log.warning("task math: %s; left out (task.bad_rows=drop)", sentence)
    return usable
