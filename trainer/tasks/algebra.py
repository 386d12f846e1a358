"""Whether two expressions are equal: parsed and compared by math-verify, with a second opinion by numbers.

Imported only by the process of :mod:`trainer.tasks.grader`, which limits its time and memory: sympy may take for ever.
math-verify alone pays for some incorrect answers: it folds case, rounds floats to six digits and small numbers to zero,
and holds two equations without a real solution to be one. So letters keep their case, decimals become exact, values
that differ at one of four points are different, and where the two opinions contradict each other there is no verdict.
"""

from __future__ import annotations

import contextlib
import functools
import re
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, _Latex2Sympy, normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex

MAX_CHARACTERS = 300
MAX_BITS = 1_000_000
"""Numbers that take more are not computed."""

_DIGITS = 30
_TOLERANCE = sympy.Float("1e-20", _DIGITS)
_NORMALISATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_CONVERSION = ConversionConfig(lowercase_symbols=False)
# What the parser would leave out in silence: a mixed number, the base of a number, a prime, an unfinished decimal.
_LEFT_OUT = re.compile(r"(?<![_0-9])[0-9]+ [0-9]|(?<![_0-9])[0-9]+_|'|\\prime|\\l?dots|\.\.|\?|\"")
_MIXED = re.compile(r"[0-9]+\\frac\{[0-9]+\}\{[0-9]+\}")
_POINTS = ("0.7310585", "1.8472139", "2.6180339", "-1.3371337")


def equal(gold: str, answer: str) -> bool | None:
    """Whether two expressions are the same; None if one cannot be read, is too large, or the opinions differ."""
    try:
        gold_tree, answer_tree = read(gold), read(answer)
        if gold_tree is None or answer_tree is None:
            return None
        if gold_tree == answer_tree:
            return True
        opinion = agree(gold_tree, answer_tree)
        if opinion is False and isinstance(gold_tree, sympy.Expr):
            return False  # two values differ by more than any rounding
        if opinion and isinstance(gold_tree, sympy.Eq):
            return True  # one equation is a multiple of the other, which math-verify does not see
        if opinion and isinstance(gold_tree, sympy.Symbol):
            return bool(sympy.simplify(gold_tree - answer_tree) == 0)  # it compares a letter with letters only
        verified = bool(
            verify(gold_tree, answer_tree, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True)
        )
    except Exception:  # parser and algebra raise whatever they like on text that is no mathematics
        return None
    return verified if opinion is None or opinion == verified else None


@functools.lru_cache(maxsize=4096)  # the correct answer is compared with every response of its group
def read(text: str) -> Any | None:
    """The expression, exact and unevaluated, or None if it cannot be read or evaluated in bounds."""
    if len(text) > MAX_CHARACTERS or _LEFT_OUT.search(text):
        return None
    parser = _Parser(is_real=not should_treat_as_complex(text), convert_degrees=True, config=_CONVERSION)
    tree = parser.parse(normalize_latex(text, _NORMALISATION))
    if not isinstance(tree, sympy.Basic | sympy.MatrixBase) or tree is sympy.S.NaN:
        return None
    parts = tree.flat() if isinstance(tree, sympy.MatrixBase) else [tree]
    if any(bits(part) > MAX_BITS for part in parts):
        return None
    letters = {symbol for part in parts for symbol in part.free_symbols if symbol.name == "i"}
    return tree.xreplace(dict.fromkeys(letters, sympy.I)) if letters else tree


class _Parser(_Latex2Sympy):  # type: ignore[misc]
    """math-verify's parser; numbers are exact, and not read by ``sympy.Number``, which compiles the text."""

    def parse_number(self, text: str) -> sympy.Rational:
        if "e" in text.lower():
            raise ValueError(f"{text[:50]}: a few characters for a huge number, or a product with Euler's number?")
        return sympy.Rational(text.replace(",", ""))

    def convert_postfix_list(self, arr: Any, i: int = 0) -> Any:
        """A product of what stands side by side, but for a mixed number such as ``2\\frac{1}{2}``. math-verify's parser
        takes every whole number before a positive number for one: to it, ``2(3)`` is 5."""
        if i + 1 == len(arr) or _MIXED.fullmatch(arr[i].getText() + arr[i + 1].getText()):
            return super().convert_postfix_list(arr, i)
        factor = self.convert_postfix(arr[i])
        if not isinstance(factor, sympy.Expr | sympy.MatrixBase):
            return super().convert_postfix_list(arr, i)
        rest = self.convert_postfix_list(arr, i + 1)
        matrices = any(isinstance(each, sympy.MatrixBase) for each in (factor, rest))
        return (self.mat_mul_flat if matrices else self.mul_flat)(factor, rest)


def bits(tree: sympy.Basic) -> float:
    """An upper bound for the size of any number that evaluating ``tree`` makes; symbols count as small."""
    sizes = [bits(part) for part in tree.args]
    if isinstance(tree, sympy.Rational):
        return float(max(int(tree.p).bit_length(), int(tree.q).bit_length()))
    if not sizes:
        return 8.0
    if isinstance(tree, sympy.Pow | sympy.exp | sympy.factorial):
        exponent = sizes[-1]
        if isinstance(tree, sympy.Pow) and tree.args[1].is_Rational:
            repeats: float = max(1.0, min(abs(float(tree.args[1])), 1e9))
            return max(sizes[0], 1.0) * repeats
        largest: float = 2.0 ** min(exponent, 64.0)
        return max(sizes) * largest
    return sum(sizes) + len(sizes) if isinstance(tree, sympy.Mul) else max(sizes) + len(sizes)


def agree(first: Any, second: Any) -> bool | None:
    """Whether two expressions, or the sides of two equations up to a factor, have equal values; None if unknown."""
    if isinstance(first, sympy.Eq) and isinstance(second, sympy.Eq):
        first, second = first.lhs - first.rhs, second.lhs - second.rhs
        ratios = [_divided(*pair) for pair in _values(first, second)]
        return None if not ratios or None in ratios else all(_close(ratio, ratios[0]) for ratio in ratios)
    if not (isinstance(first, sympy.Expr) and isinstance(second, sympy.Expr)):
        return None
    pairs = _values(first, second)
    return all(_close(*pair) for pair in pairs) if pairs else None


def _values(first: sympy.Expr, second: sympy.Expr) -> list[tuple[Any, Any]]:
    """Both values at points where both have one; a value of which every digit is lost (``1-1``) is none."""
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    pairs = []
    for point in _POINTS if symbols else _POINTS[:1]:
        at = {symbol: sympy.Float(point, _DIGITS) * (1 + sympy.Rational(k, 7)) for k, symbol in enumerate(symbols)}
        with contextlib.suppress(sympy.PrecisionExhausted):
            values = [side.subs(at).evalf(_DIGITS, chop=False, strict=True) for side in (first, second)]
            if all(value.is_number and value.is_finite for value in values):
                pairs.append((values[0], values[1]))
    return pairs


def _divided(top: Any, bottom: Any) -> Any | None:
    return None if abs(bottom) < _TOLERANCE or abs(top) < _TOLERANCE else (top / bottom).evalf(_DIGITS)


def _close(first: Any, second: Any) -> bool:
    return bool(abs(first - second) <= _TOLERANCE * max(abs(first), abs(second)))
