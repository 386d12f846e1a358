"""Expressions as responses may write them, against their exact values."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainer.tasks import algebra
from trainer.tasks.answers import spelled

Expression = tuple[str, Fraction]
"""LaTeX and value. Whatever is put together below brings its own brackets."""


def joined(pair: tuple[Expression, Expression, str]) -> Expression:
    """Two expressions by one of the ways to write sums, products, quotients and powers."""
    (left, a), (right, b), way = pair
    if way in ("\\frac", "/", "\\div "):
        assume(b != 0)
        value = a / b
    elif way == "^":
        assume(a != 0 and right.isdigit() and b <= 4 and abs(a) < 100)  # other exponents may be refused
        value = a ** int(b)
    else:
        value = {"+": a + b, "-": a - b}.get(way, a * b)
    text = {
        "\\frac": f"\\frac{{{left}}}{{{right}}}",
        "beside": f"({left})({right})",
        "after a digit": f"2({left})({right})",
        "^": f"({left})^{{{right}}}",
    }.get(way, f"({left}){way}({right})")
    return text, 2 * value if way == "after a digit" else value


NUMBERS = st.integers(0, 20).map(lambda number: (str(number), Fraction(number)))
WAYS = st.sampled_from(["+", "-", "*", "\\cdot ", "\\times ", "/", "\\div ", "\\frac", "beside", "after a digit", "^"])
EXPRESSIONS = st.recursive(NUMBERS, lambda part: st.tuples(part, part, WAYS).map(joined), max_leaves=5)


def test_products_within_products_are_read_once() -> None:
    text = "x"
    for _ in range(24):
        text = f"({text}+1)(y)"
    assert algebra.read(spelled(text)) is not None  # every level twice would take hours


@settings(max_examples=300, deadline=None, derandomize=True)
@given(EXPRESSIONS)
def test_an_expression_is_its_value_and_no_other(expression: Expression) -> None:
    text, value = expression
    assume(abs(value) < 10**6 and value.denominator < 10**6)
    answer = spelled(text)
    assert algebra.equal(f"\\frac{{{value.numerator}}}{{{value.denominator}}}", answer) is True, text
    other = value + 1
    assert algebra.equal(f"\\frac{{{other.numerator}}}{{{other.denominator}}}", answer) is False, text
