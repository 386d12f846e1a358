"""Reading final answers of free-form responses: where they are, one spelling of them, and the exact value of a
number.

Every function here takes untrusted text, is linear in its length, evaluates nothing and must never raise on it. A
spelling keeps what carries structure: braces, brackets, case, and the space in ``3 1/4``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

Extract = Literal["boxed", "number", "boxed_or_number", "tags", "marker"]
"""Where a response's answer is."""
MAX_ANSWER_CHARACTERS = 1000
"""Longer answers are unreadable; bounds the work of a comparison."""
_TAIL_CHARACTERS = 2000

# At most 40 digits on either side and exponents of two, so that a few characters cannot stand for a huge number.
_DECIMAL = r"(?:[0-9]{1,3}(?:[, ][0-9]{3}){1,12}|[0-9]{1,40})(?:\.[0-9]{0,40})?|\.[0-9]{1,40}"
_NUMBER = re.compile(rf"([-+]?)({_DECIMAL})")
_RATIO = re.compile(rf"([-+]?)({_DECIMAL})/([-+]?)({_DECIMAL})")
_FRACTION = re.compile(r"([-+]?)\\frac\{([-+]?)([0-9]{1,40})\}\{([-+]?)([0-9]{1,40})\}")
_MIXED = re.compile(
    r"([-+]?)([0-9]{1,40}) ?(?:\\frac\{([0-9]{1,40})\}\{([0-9]{1,40})\}|(?<= )([0-9]{1,40})/([0-9]{1,40}))"
)
_SCIENTIFIC = re.compile(rf"([-+]?)({_DECIMAL})(?:\\times|\\cdot|\*)10\^(?:\{{([-+]?[0-9]{{1,2}})\}}|(-?[0-9]{{1,2}}))")
_REPEATING = re.compile(r"([-+]?)([0-9]{0,40})\.([0-9]{0,40})\\(?:overline|bar)\{([0-9]{1,40})\}")
_NUMBER_IN_TEXT = re.compile(
    r"(?:(?<![\w)\]}])[-\u2212])?"
    r"(?:[0-9]{1,9} [0-9]{1,40}/[0-9]{1,40}"
    r"|(?:[0-9]{1,40}(?:,[0-9]{3}){0,12}(?:\.[0-9]{1,40})?|(?<![0-9])\.[0-9]{1,40})(?:/[0-9]{1,40})?)(?:\\?%)?"
)

_CHARACTERS = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u03c0": "\\pi ", "\u221e": "\\infty "}
    | {"\u2264": "\\le ", "\u2265": "\\ge ", "\u00b0": "^\\circ ", "\u00b2": "^2", "\u00b3": "^3", "\u222a": "\\cup "}
    | dict.fromkeys("\u00a0\u2009\u202f\t\r\n", " ")
)
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=[0-9])(?:\{,\}|,\\!|\\,|~)(?=[0-9]{3}(?![0-9]))", ""),  # digits in groups of three, without doubt
        (r"(?<!\\)\$|\\\$|\\!|\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])", ""),
        (r"(?<!\\)\\[ ,;:]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\%", "%"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\(?:rbrace|\})", r"\\}"),
        (r"(\\[lg]e)(?:q|qslant)(?![A-Za-z])", r"\1"),
        (r"\\langle ?", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\(?:text[a-z]{0,6}|math(?:rm|bf|it)|mbox) ?\{ ?(?:and|or) ?\}", ","),
        (r"(?<=[0-9)\]}$]) (?:and|or) (?=[-+]?[0-9(\[$\\])", ","),
        (r"(?<![\\A-Za-z])(pi|sqrt|sin|cos|tan|log|ln)(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z])infinity(?![A-Za-z])", r"\\infty "),
        (r"\\sqrt ?\(([^()]{0,99})\)", r"\\sqrt{\1}"),
        (r"(\\frac|\\sqrt) ?([0-9A-Za-z]|\\(?!frac|sqrt)[A-Za-z]{1,9})", r"\1{\2}"),
        (r"(\\frac\{[^{}]{0,99}\}) ?([0-9A-Za-z]|\\(?!frac|sqrt)[A-Za-z]{1,9})", r"\1{\2}"),
        (r" {1,}", " "),
        (r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])", ""),
    )
)
_CHOICE = re.compile(r"\(?([A-Za-z])(?:[).:][\s\S]*)?")
_TEXT = re.compile(r"\\(?:text[a-z]{0,6}|math(?:rm|bf|it)|mbox|operatorname)\{([^{}]*)\}")
_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")


def extracted(text: str, where: Extract, marker: str) -> str | None:
    """The final answer of a response: the last ``\\boxed{...}``, the last number, the first of these that exists, the
    last ``<answer>...</answer>``, or what follows the last ``marker`` on its line. None where there is none."""
    if where == "tags":
        return last_tagged(text)
    if where == "marker":
        return last_marked(text, marker)
    boxed = last_boxed(text) if where != "number" else None
    return last_number(text) if boxed is None and where != "boxed" else boxed


def last_boxed(text: str) -> str | None:
    """Content of the last ``\\boxed{...}`` with balanced braces, or None (also when it is never closed)."""
    start = text.rfind("\\boxed")
    if start < 0:
        return None
    start += len("\\boxed")
    start += len(text[start : start + 9]) - len(text[start : start + 9].lstrip())
    if text[start : start + 1] != "{":
        return None
    depth = 0
    for index in range(start, min(len(text), start + MAX_ANSWER_CHARACTERS + 2)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + 1 : index]
    return None


def reference(answer: str) -> str:
    """The final answer in a reference: what follows ``####``, the content of its last box, or all of it."""
    bare = answer.rpartition("####")[2].strip()
    boxed = last_boxed(bare)
    return bare if boxed is None else boxed


def last_tagged(text: str) -> str | None:
    """What stands between the last ``</answer>`` and the ``<answer>`` before it, or None."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return text[start + len("<answer>") : end].strip() if start >= 0 else None


def last_marked(text: str, marker: str) -> str | None:
    """The rest of the line after the last ``marker``, whatever its case, or None."""
    start = text.lower().rfind(marker.lower())
    return text[start + len(marker) :].partition("\n")[0].strip() if start >= 0 else None


def last_number(text: str) -> str | None:
    """The last number in the last 2000 characters, as spelled (``1,234.5``, ``-3/4``, ``3 1/4``), or None."""
    last = None
    for match in _NUMBER_IN_TEXT.finditer(text[-_TAIL_CHARACTERS:]):
        last = match.group()
    return last


def spelled(text: str, *, ignore_case: bool = False) -> str:
    """One spelling of an answer, with all that carries structure: what LaTeX ignores is gone, short forms are long.

    ``$\\dfrac12$``, ``\\frac{1}{2}.`` and ``\\tfrac 1 2`` become ``\\frac{1}{2}``; ``\\text{Yes}`` becomes ``Yes``;
    ``2^{n+1}`` keeps its braces. ``ignore_case`` folds letters outside commands.
    """
    text = text[:MAX_ANSWER_CHARACTERS].translate(_CHARACTERS)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = text.strip().rstrip(" .,;")
    match = _TEXT.fullmatch(text)
    text = match[1].strip().rstrip(".") if match else text
    while enclosed(text) in ("()", "{}") and "," not in text and ";" not in text:
        text = text[1:-1].strip()
    if ignore_case:
        text = _LETTER.sub(lambda letter: letter[0] if letter[0].startswith("\\") else letter[0].casefold(), text)
    return text


def enclosed(text: str) -> str:
    """The two brackets around the whole of ``text`` (``()``, ``[)``, ``{}``, ...), or nothing."""
    if len(text) < 2 or text[0] not in "([{" or text[-1] not in ")]}":
        return ""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return text[0] + text[-1] if index == len(text) - 1 else ""
    return ""


def balanced(text: str) -> bool:
    """Whether every brace that opens closes."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def as_fraction(text: str) -> Fraction | None:
    """The exact value of a number in the spelling of :func:`spelled`, or None when it is something else.

    Integers, decimals, thousands, ``a/b``, ``\\frac{a}{b}``, mixed numbers (``3 1/4``, ``3\\frac{1}{4}``),
    ``3\\times10^{3}`` and repeating decimals (``0.\\overline{3}``).
    """
    if match := _NUMBER.fullmatch(text):
        return _signed(match[1], _decimal(match[2]))
    if match := _RATIO.fullmatch(text):
        return _signed(match[1] + match[3], _divide(_decimal(match[2]), _decimal(match[4])))
    if match := _FRACTION.fullmatch(text):
        return _signed(match[1] + match[2] + match[4], _divide(Fraction(int(match[3])), Fraction(int(match[5]))))
    if match := _MIXED.fullmatch(text):
        top, bottom = int(match[3] or match[5]), int(match[4] or match[6])
        return _signed(match[1], int(match[2]) + Fraction(top, bottom)) if 0 < top < bottom else None
    if match := _SCIENTIFIC.fullmatch(text):
        return _signed(match[1], _decimal(match[2]) * Fraction(10) ** int(match[3] or match[4]))
    if match := _REPEATING.fullmatch(text):
        whole, fixed, period = match[2] or "0", match[3], match[4]
        tail = Fraction(int(period), 10 ** len(period) - 1) / 10 ** len(fixed)
        return _signed(match[1], _decimal(f"{whole}.{fixed}") + tail)
    return None


def _decimal(text: str) -> Fraction:
    whole, _, digits = text.replace(",", "").replace(" ", "").partition(".")
    return Fraction(int((whole or "0") + digits), 10 ** len(digits))


def _signed(signs: str, value: Fraction | None) -> Fraction | None:
    return -value if value is not None and signs.count("-") % 2 else value


def _divide(top: Fraction, bottom: Fraction) -> Fraction | None:
    return top / bottom if bottom else None


def choice(text: str) -> str:
    """The letter of a multiple choice (``B``, ``(b)``, ``B. 42``, ``\\text{B}``) in upper case, or nothing."""
    match = _CHOICE.fullmatch(spelled(text))
    return match[1].upper() if match else ""


def canonical(text: str, *, exact: bool = False, ignore_case: bool = False) -> str:
    """One spelling for equal numbers, the reduced fraction; else :func:`spelled`. ``exact``: numbers too as text."""
    text = spelled(text, ignore_case=ignore_case)
    value = None if exact else as_fraction(text)
    return text if value is None else str(value)
