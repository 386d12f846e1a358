"""Written-out countdown solutions: strict parser, step-by-step check, canonical form.

It must never evaluate text: digits and operators are matched by one bounded regular expression and computed with
four integer operations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MAX_CHARACTERS = 256
"""Longer responses are malformed; bounds the work of the verifier."""

# Words may precede a step: they are passed over, as a verifier of mathematics passes over prose.
# Positive numbers of at most six digits without leading zeros; ASCII digits only, so no exotic numerals.
_STEP = re.compile(r"(?:[a-z]{1,12} ){0,8}([1-9][0-9]{0,5})([-+*/])([1-9][0-9]{0,5})=([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a solution, ``left operator right = result``; all numbers are positive whole numbers."""

    left: int
    operator: str
    right: int
    result: int

    @property
    def text(self) -> str:
        """The step as a response spells it, for example ``4*7=28``."""
        return f"{self.left}{self.operator}{self.right}={self.result}"


def spell(steps: Sequence[Step]) -> str:
    """A response: steps joined by commas."""
    return ",".join(step.text for step in steps)


def compute(left: int, operator: str, right: int) -> int | None:
    """``left operator right`` when it is a positive whole number, else None (the rule of the countdown game)."""
    if operator == "+":
        return left + right
    if operator == "*":
        return left * right
    if operator == "-":
        return left - right if left > right else None
    if operator == "/":
        return left // right if right > 0 and left % right == 0 else None
    raise ValueError(f"unknown operator {operator!r}; use one of + - * /")


def end_of_step(text: str, count: int) -> int:
    """Characters of ``text`` up to the end of its step number ``count``, counted from 1."""
    return len(",".join(text.split(",")[:count]))


def parse(text: str) -> tuple[Step, ...] | None:
    """The steps of a response, or None when any character is out of place. Linear in the length of ``text``.

    Words of small letters, each with a blank after it, may precede a step: ``so now 4*7=28,then 28-2=26``.
    """
    if not 0 < len(text) <= MAX_CHARACTERS:
        return None
    steps = []
    for part in text.split(","):
        match = _STEP.fullmatch(part)
        if match is None:
            return None
        left, operator, right, result = match.groups()
        steps.append(Step(left=int(left), operator=operator, right=int(right), result=int(result)))
    return tuple(steps)


def solves(steps: Sequence[Step], numbers: Sequence[int], target: int) -> bool:
    """True when each number and intermediate is used at most once, each step is correct and the last is the target."""
    return bool(steps) and num_correct(steps, numbers) == len(steps) and steps[-1].result == target


def num_correct(steps: Sequence[Step], numbers: Sequence[int]) -> int:
    """Leading steps that are correct and use each number and intermediate at most once."""
    available = Counter(numbers)
    for number, step in enumerate(steps):
        for operand in (step.left, step.right):
            if available[operand] == 0:
                return number
            available[operand] -= 1
        if compute(step.left, step.operator, step.right) != step.result:
            return number
        available[step.result] += 1
    return len(steps)


def first_reached(steps: Sequence[Step], numbers: Sequence[int], target: int) -> int | None:
    """Steps up to and including the first one that reaches the target by correct steps alone; None when none does."""
    results = [step.result for step in steps[: num_correct(steps, numbers)]]
    return results.index(target) + 1 if target in results else None


# A canonical expression is (kind, plain parts, inverse parts): a sum with added and subtracted terms, a product with
# factors and divisors, or a bare number. Parts are canonical texts, sorted, so spelling and order disappear.
_Expression = tuple[str, tuple[str, ...], tuple[str, ...]]


def canonical(steps: Sequence[Step]) -> str:
    """One spelling for all orders, associations and commutations of a correct solution; unused steps vanish.

    ``4*7=28,28-2=26`` and ``7*4=28,28-2=26`` both give ``4*7-2``. Where one value is both a given number and an
    intermediate, the latest intermediate is taken to be the one used.
    """
    results: dict[int, list[_Expression]] = {}

    def take(value: int) -> _Expression:
        return results[value].pop() if results.get(value) else ("number", (str(value),), ())

    last: _Expression = ("number", (), ())
    for step in steps:
        last = _combine(take(step.left), step.operator, take(step.right))
        results.setdefault(step.result, []).append(last)
    return _write(last)


def _combine(left: _Expression, operator: str, right: _Expression) -> _Expression:
    """Merge two expressions; chains of one kind are flattened: a-(b-c) has terms a, c and subtracted b."""
    kind = "sum" if operator in "+-" else "product"
    left_plain, left_inverse = _parts(left, kind)
    right_plain, right_inverse = _parts(right, kind)
    if operator in "-/":
        right_plain, right_inverse = right_inverse, right_plain
    return kind, tuple(sorted(left_plain + right_plain)), tuple(sorted(left_inverse + right_inverse))


def _parts(expression: _Expression, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Plain and inverse parts of an expression seen as a chain of ``kind``."""
    if expression[0] == kind:
        return expression[1], expression[2]
    text = _write(expression)
    return ((f"({text})" if expression[0] == "sum" else text),), ()


def _write(expression: _Expression) -> str:
    kind, plain, inverse = expression
    join, undo = ("+", "-") if kind == "sum" else ("*", "/")
    return join.join(plain) + "".join(undo + part for part in inverse)
