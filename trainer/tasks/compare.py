"""Whether two final answers are the same: equations, lists, units, words and numbers here, expressions by a
function.

An equation is split into sides, a list into items, a quantity into number and unit; expressions that remain go to
``algebra``. Results are True, False, or None where the two cannot be compared. It must not import sympy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction

from trainer.tasks.answers import as_fraction, enclosed, spelled

Algebra = Callable[[str, str], bool | None]
"""Compares two expressions, the correct one first."""

MAX_ITEMS = 16
"""Longer lists are not compared item by item: every pair may take a call of ``algebra``."""

_EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
_SUBSCRIPT = r"(?:_(?:\{[^{}]{1,20}\}|[0-9A-Za-z]))?"
_NAME = re.compile(
    rf"(?:\\(?:text|mathrm|mathbf|operatorname)\{{[^{{}}]{{1,40}}\}}|\\?[A-Za-z]{{1,20}}| ){_SUBSCRIPT}'{{0,3}}"
    rf"(?:(?:\\?[A-Za-z]{{1,20}}| ){_SUBSCRIPT}){{0,4}}(?:\([^()=]{{1,20}}\))?"
)
_WORDS = re.compile(
    r"(?=(?:[^A-Za-z\u00c0-\uffff]*[A-Za-z\u00c0-\uffff]){3})[A-Za-z\u00c0-\uffff][A-Za-z\u00c0-\uffff '.-]*"
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_UNIT = re.compile(
    r"(?P<core>.*?[^\s\\^_]) ?(?P<unit>%|\^\{?\\circ\}?|_\{?[0-9]{1,2}\}?"
    r"|\\(?:text[a-z]{0,6}|math(?:rm|bf|it)|mbox) ?\{[^{}]{1,40}\}(?:\^\{?[0-9]\}?)?| [A-Za-z]{2,12}(?:\^\{?[0-9]\}?)?)"
)
_UNIT_WORDS = """
    mm cm dm km ft foot feet inch inche yard mile meter metre centimeter centimetre kilometer kilometre unit square
    cubic mg kg gram kilogram pound ounce ton liter litre ml gallon second sec minute min hour hr day week month year
    dollar cent degree percent mph kph radian rad people point way time
"""
_UNITS = frozenset(_UNIT_WORDS.split())
"""What may follow a number without ``\\text``, in the singular."""


def same(gold: str, answer: str, algebra: Algebra) -> bool | None:
    """Whether ``answer`` says what ``gold`` says. Not symmetric: an answer may add a name (``x=7``) or a unit."""
    if gold == answer:
        return True
    gold_items, answer_items = items(gold), items(answer)
    if gold_items and answer_items:
        return _lists(gold_items, answer_items, algebra)
    if _EQUALS.search(gold) or _EQUALS.search(answer):
        return _equations(gold, answer, algebra)
    listed, single = (gold_items, answer) if gold_items else (answer_items, gold)
    if listed:
        value, _ = quantity(single)
        return False if value is not None or _WORDS.fullmatch(single) else algebra(gold, answer)
    return _single(gold, answer, algebra)


def items(text: str) -> tuple[str, list[str]] | None:
    """Brackets (none for a bare list) and items of a tuple, interval, set, list, or the two of one ``\\pm``."""
    if text.startswith("\\{") and text.endswith("\\}") and enclosed(text[1:-2] + "}"):
        return "{}", [spelled(part) for part in _split(text[2:-2])]
    brackets = enclosed(text)
    parts = _split(text[1:-1] if brackets else text)
    if len(parts) > 1:
        return (brackets, [spelled(part) for part in parts]) if brackets or as_fraction(text) is None else None
    if text.count("\\pm") == 1:
        halves = [text.replace("\\pm", sign).replace("\\mp", other) for sign, other in ("+-", "-+")]
        return "", [spelled(half.removeprefix("+")) for half in halves]
    return None


def _split(text: str) -> list[str]:
    """The parts between commas or semicolons that stand in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character in ",;":
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _lists(gold: tuple[str, list[str]], answer: tuple[str, list[str]], algebra: Algebra) -> bool | None:
    (kind, golds), (other, answers) = gold, answer
    if len(golds) != len(answers):
        return False
    if len(golds) > MAX_ITEMS:
        return None
    ordered = all_of(same(gold, answer, algebra) for gold, answer in zip(golds, answers, strict=True))
    if {kind, other} <= {"", "{}"}:  # roots, elements: in any order
        return True if ordered else _matched(golds, answers, algebra)
    if kind == other or "" in (kind, other):
        return ordered
    return None if ordered and "{}" in (kind, other) else False  # [0,1] is not (0,1)


def _matched(golds: list[str], answers: list[str], algebra: Algebra) -> bool | None:
    """Whether every item has a partner of its own. Greedy: equality is transitive."""
    left, doubt = list(answers), False
    for gold in golds:
        partner = None
        for answer in left:
            equal = same(gold, answer, algebra)
            doubt = doubt or equal is None
            if equal:
                partner = answer
                break
        if partner is None:
            return None if doubt else False
        left.remove(partner)
    return True


def _equations(gold: str, answer: str, algebra: Algebra) -> bool | None:
    """A name before the value is no part of the value; without one, every side has to be correct (``2+2=4``)."""
    gold_sides, answer_sides = _sides(gold), _sides(answer)
    if "" in gold_sides or "" in answer_sides:
        return None
    gold_named, answer_named = _is_name(gold_sides), _is_name(answer_sides)
    if len(gold_sides) > 1 and len(answer_sides) > 1:
        if not (gold_named and answer_named):
            return algebra(gold, answer) if len(gold_sides) == len(answer_sides) == 2 else None
        if gold_sides[0] == answer_sides[0]:
            return all_of(same(gold_sides[-1], side, algebra) for side in answer_sides[1:])
        values = [quantity(sides[-1])[0] for sides in (gold_sides, answer_sides)]
        return False if None not in values else algebra(gold, answer)
    if len(gold_sides) > 1:
        return same(gold_sides[-1], answer, algebra) if gold_named else algebra(gold, answer)
    return all_of(same(gold, side, algebra) for side in (answer_sides[1:] if answer_named else answer_sides))


def _sides(text: str) -> list[str]:
    return [spelled(part) for part in _EQUALS.split(text)]


def _is_name(sides: list[str]) -> bool:
    return len(sides) > 1 and _NAME.fullmatch(sides[0]) is not None


def _single(gold: str, answer: str, algebra: Algebra) -> bool | None:
    if _WORDS.fullmatch(gold) or _WORDS.fullmatch(answer):
        return _words(gold, answer)
    (gold_core, gold_unit), (answer_core, answer_unit) = with_unit(gold), with_unit(answer)
    gold_value, answer_value = as_fraction(gold_core), as_fraction(answer_core)
    if gold_value is None or answer_value is None:
        if gold_core != answer_core and _WORD.findall(gold_core) != _WORD.findall(answer_core):
            return None
        equal = True if gold_core == answer_core else algebra(gold_core, answer_core)
        return None if equal and differ(gold_unit, answer_unit) else equal
    if differ(gold_unit, answer_unit):
        return None  # 7 m and 700 cm: that would take a table of units
    if (gold_unit == "%") != (answer_unit == "%"):  # 50 % is 0.5, and the answer to "what percentage" is 50
        return gold_value == answer_value or (
            gold_value == answer_value / 100 if answer_unit == "%" else gold_value / 100 == answer_value
        )
    return gold_value == answer_value


def _words(gold: str, answer: str) -> bool | None:
    """Words are compared as text. A word and something else cannot be, nor ``abc`` and ``bca``: words or products?"""
    if not (_WORDS.fullmatch(gold) and _WORDS.fullmatch(answer)):
        return None
    return None if sorted(gold) == sorted(answer) else False


def with_unit(text: str) -> tuple[str, str]:
    """An answer without its unit, percent sign, degree sign or base, and that; bare words only if they are units."""
    match = _UNIT.fullmatch(text)
    if match is None:
        return text, ""
    unit = re.sub(r"\\[a-z]+ ?(?=\{)|[\s{}]", "", match["unit"]).lower()
    word = re.sub(r"\^?[0-9]+$", "", unit).rstrip("s")
    bare, degrees = match["unit"].startswith(" "), "circ" in unit
    if (bare and word not in _UNITS) or ((bare or degrees) and as_fraction(match["core"]) is None):
        return text, ""
    unit = {"percent": "%", "^\\circ": "degree", "dollar": "", "cent": "cent"}.get(unit.rstrip("s"), unit.rstrip("s"))
    return spelled(match["core"]), unit


def quantity(text: str) -> tuple[Fraction | None, str]:
    """Exact value, if there is one, and unit."""
    core, unit = with_unit(text)
    return as_fraction(core), unit


def differ(unit: str, other: str) -> bool:
    """Whether both name a unit, and not the same."""
    return bool(unit) and bool(other) and unit != other


def all_of(results: Iterable[bool | None]) -> bool | None:
    """False if one is, else None if one is, else True."""
    values = list(results)
    return False if False in values else None if None in values else True
