"""Task from a table of countdown problems in TinyZero's columns: one expression that uses every number once.

Built by ``conf/task/countdown_3to4.yaml``; read by the loop and by evaluation. It must not evaluate a response: the
expression is read by a parser of this file and computed in exact fractions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from trainer.batch.types import Prompt, Verdict
from trainer.contract.settings import Range, Seed
from trainer.tasks.answers import last_tagged
from trainer.tasks.diversity import Selection, Subset, at_random, selection, shuffled
from trainer.tasks.tables import column, records, require_source
from trainer.tasks.template import CHAT, PromptFormat, with_line_breaks

MAX_CHARACTERS = 200
"""Longer expressions are unreadable; bounds the work of the parser and the depth of its brackets."""
MAX_NUMBERS = 8
_TOKEN = re.compile(r"\s*([0-9]{1,9}|[-+*/()])")


@dataclass(frozen=True, slots=True, kw_only=True)
class EquationTask:
    """Reward 1.0 for an expression of ``+ - * /`` and brackets between ``<answer>`` tags that uses every given number
    exactly once and equals the target, else 0.0. Source: TinyZero's countdown reward, without its 0.1 for the format.

    ``Verdict.answer`` is the value of the expression; ``Verdict.solution`` the expression without blanks.
    """

    path: str | None = None
    """A JSON-lines, CSV or Parquet file, or ``hub:OWNER/NAME/CONFIGURATION:SPLIT``."""
    numbers_field: str = "nums"
    target_field: str = "target"
    prompt_template: str = (
        "Using the numbers {numbers}, write an expression that equals {target}. You can use +, -, *, / and brackets, "
        "and each number exactly once. Reason between <think> and </think>, then give the expression alone between "
        "<answer> and </answer>, for example <answer>(1 + 2) / 3</answer>.\n"
    )
    prompt_format: PromptFormat = "auto"
    system_prompt: str | None = None
    num_prompts: Annotated[int, Range(1)] | None = None
    """Distinct training problems, a subset by ``problem_seed`` (subsets nest); null is all of them."""
    subset: Subset = "random"
    """See ``task=math``."""
    clusters: Annotated[int, Range(1, 100_000)] = 64
    problem_seed: Seed = 0
    num_heldout: Annotated[int, Range(1)] = 1024
    """The first rows of the table, which are not trained on; suite ``heldout``."""

    def __post_init__(self) -> None:
        if self.path is None:
            raise ValueError("task countdown_3to4: path is null; set task.path to a table of numbers and targets")
        require_source(self.path)
        for part in ("{numbers}", "{target}"):
            if part not in self.prompt_template:
                raise ValueError(f"task countdown_3to4: prompt_template lacks {part}; put it where that goes")

    def train_prompts(self) -> list[Prompt]:
        """All rows after the held-out ones, or the first ``num_prompts`` of one fixed shuffle."""
        at_random(self.selection())
        return self._trained() if self.num_prompts is None else self.pool()[: self.num_prompts]

    def selection(self) -> Selection | None:
        """By ``subset``."""
        return selection(self.subset, self.num_prompts, self.clusters)

    def pool(self) -> list[Prompt]:
        """All rows after the held-out ones, shuffled by ``problem_seed``."""
        return shuffled(self._trained(), self.problem_seed)

    def _trained(self) -> list[Prompt]:
        prompts = self._prompts()[self.num_heldout :]
        if len(prompts) < (self.num_prompts or 1):
            raise ValueError(
                f"task countdown_3to4: {self.path} leaves {len(prompts)} problems to train on beside "
                f"{self.num_heldout} held-out ones; lower task.num_heldout or task.num_prompts"
            )
        return prompts

    def suites(self) -> dict[str, list[Prompt]]:
        """``heldout``: the first rows."""
        return {"heldout": self._prompts()[: self.num_heldout]}

    def notes(self) -> list[str]:
        """None: every row is checked when it is read."""
        return []

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """See the class; never raises on any ``text``."""
        tagged = last_tagged(text)
        parsed = None if tagged is None else expression(tagged.partition("=")[0])
        if parsed is None or tagged is None:
            return Verdict(reward=0.0)
        value, used = parsed
        correct = value == prompt.data["target"] and sorted(used) == prompt.data["numbers"]
        solution = re.sub(r"\s", "", tagged.partition("=")[0])
        return Verdict(reward=float(correct), answer=str(value), solution=solution if correct else None)

    def expert(self, prompt: Prompt) -> str | None:
        """None: the table holds no solutions."""
        return None

    def _prompts(self) -> list[Prompt]:
        rows = records(str(self.path), (self.numbers_field, self.target_field))
        system = None if self.system_prompt is None else with_line_breaks(self.system_prompt)
        prompts = []
        for number, row in rows:
            numbers, target = self._problem(row, number)
            text = with_line_breaks(self.prompt_template)
            text = text.replace("{numbers}", str(numbers)).replace("{target}", str(target))
            data: dict[str, object] = {"numbers": sorted(numbers), "target": target, "where": f"{self.path}:{number}"}
            chat = CHAT[self.prompt_format]
            prompts.append(Prompt(id=f"row-{number}", text=text, data=data, chat=chat, system=system))
        return prompts

    def _problem(self, row: Any, number: int) -> tuple[list[int], int]:
        """Numbers and target of a row, which have to be whole."""
        numbers, target = (row and column(row, name) for name in (self.numbers_field, self.target_field))
        if isinstance(numbers, list) and 1 < len(numbers) <= MAX_NUMBERS and all(map(_whole, [*numbers, target])):
            return [*numbers], target
        raise ValueError(
            f"task countdown_3to4: {self.path}, row {number} has no list of 2 to {MAX_NUMBERS} whole numbers in "
            f"{self.numbers_field!r} and a whole number in {self.target_field!r}; set task.numbers_field and "
            "task.target_field"
        )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9


def expression(text: str) -> tuple[Fraction, list[int]] | None:
    """Value of an arithmetic expression and the numbers in it, in order; None if it cannot be read or divides by 0.

    Whole numbers, ``+ - * /`` (binary only) and brackets, as ``expression = term (+- term)*``,
    ``term = factor (*/ factor)*``, ``factor = number | ( expression )``.
    """
    tokens = _tokens(text)
    if tokens is None:
        return None
    try:
        value = _sum(tokens)
    except (IndexError, ValueError, ZeroDivisionError, RecursionError):
        return None
    numbers = [int(digits) for digits in re.findall("[0-9]+", text)]
    return None if tokens else (value, numbers)


def _tokens(text: str) -> list[str] | None:
    """The tokens, last first; None if anything else is there."""
    text = text.strip()
    if not text or len(text) > MAX_CHARACTERS:
        return None
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match[1])
        position = match.end()
    return tokens[::-1]


def _sum(tokens: list[str]) -> Fraction:
    value = _product(tokens)
    while tokens and tokens[-1] in "+-":
        sign = 1 if tokens.pop() == "+" else -1
        value += sign * _product(tokens)
    return value


def _product(tokens: list[str]) -> Fraction:
    value = _factor(tokens)
    while tokens and tokens[-1] in "*/":
        operator, factor = tokens.pop(), _factor(tokens)
        value = value * factor if operator == "*" else value / factor
    return value


def _factor(tokens: list[str]) -> Fraction:
    token = tokens.pop()
    if token != "(":
        return Fraction(int(token))
    value = _sum(tokens)
    if tokens.pop() != ")":
        raise ValueError("a bracket does not close")
    return value
