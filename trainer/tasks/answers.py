"""Reading and comparing final answers of free-form responses, exactly and without evaluating any text.

Called by :mod:`trainer.tasks.jsonl`. Every function here takes untrusted text, is linear in its length and must
never raise on it.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_ANSWER_CHARACTERS = 256
"""Longer answers are unreadable; bounds the work of a comparison."""
_TAIL_CHARACTERS = 2000

# At most 40 digits on either side: no exponent, so that a few characters cannot stand for a huge number.
_PLAIN = re.compile(r"([-+]?)([0-9]{1,40})(?:\.([0-9]{1,40}))?")
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([-+]?[0-9]{1,40})\}\{([-+]?[0-9]{1,40})\}")
_NUMBER_IN_TEXT = re.compile(r"-?[0-9]{1,40}(?:,[0-9]{3}){0,12}(?:\.[0-9]{1,40})?(?:/[0-9]{1,40})?")
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3}){1,12}(?:\.[0-9]{1,40})?")
_DECORATION = re.compile(r"\\left|\\right|\\[!,;: ]|\\(?:text|mathrm)\{ {0,9}|[$%\s{}]|\\\$|\\%|\^\\circ")


def last_boxed(text: str) -> str | None:
    """Content of the last ``\\boxed{...}`` with balanced braces, or None (also when it is never closed)."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for index in range(start, min(len(text), start + MAX_ANSWER_CHARACTERS + 1)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start:index]
    return None


def last_number(text: str) -> str | None:
    """The last number in the last 2000 characters, as spelled (``1,234.5``, ``-3/4``), or None."""
    last = None
    for match in _NUMBER_IN_TEXT.finditer(text[-_TAIL_CHARACTERS:]):
        last = match.group()
    return last


def as_fraction(text: str) -> Fraction | None:
    """The exact value of an integer, decimal, ``a/b`` or ``\\frac{a}{b}``, or None when it is something else."""
    text = text[:MAX_ANSWER_CHARACTERS].strip().strip("$").strip().rstrip(".").replace("\\!", "")
    text = text.removesuffix("\\%").removesuffix("%").strip()
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    match = _FRACTION.fullmatch(text)
    if match:
        sign, top, bottom = match.groups()
        value = _divide(Fraction(int(top)), Fraction(int(bottom)))
        return -value if value is not None and sign == "-" else value
    top, slash, bottom = text.partition("/")
    if not slash:
        return _decimal(text)
    upper, lower = _decimal(top.strip()), _decimal(bottom.strip())
    return None if upper is None or lower is None else _divide(upper, lower)


def _decimal(text: str) -> Fraction | None:
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    sign, whole, digits = match.groups()
    value = Fraction(int(whole + (digits or "")), 10 ** len(digits or ""))
    return -value if sign == "-" else value


def _divide(top: Fraction, bottom: Fraction) -> Fraction | None:
    return top / bottom if bottom else None


def normalised(text: str) -> str:
    """Spelling without LaTeX decoration, braces, spaces, signs of currency and percent, case and a final stop."""
    return _DECORATION.sub("", text[:MAX_ANSWER_CHARACTERS]).rstrip(".").casefold()


def canonical_answer(text: str, numeric: bool) -> str:
    """One spelling for equal answers: the reduced fraction when ``numeric`` and readable, else the normalised text."""
    value = as_fraction(text) if numeric else None
    return normalised(text) if value is None else str(value)
