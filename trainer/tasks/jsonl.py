"""Task from local JSONL files of questions and answers, for real models: one JSON object a line.

Built by ``conf/task/math.yaml``; read by the loop and by evaluation. It must not reach the network and must not
evaluate a response: answers are compared as text, exact numbers or expressions that math-verify parses.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from trainer.batch.types import Prompt, Verdict
from trainer.contract.settings import Range, Seed
from trainer.tasks.answers import (
    MAX_ANSWER_CHARACTERS,
    balanced,
    canonical,
    last_boxed,
    last_number,
    spelled,
)
from trainer.tasks.grader import judge
from trainer.tasks.rows import BadRows, Flaw, Row, kept, numbered, read_rows, summary
from trainer.tasks.template import CHAT, with_line_breaks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlTask:
    """Questions with a known final answer; reward 1.0 when the response's final answer equals it, else 0.0.

    The reference answer may be bare (``42``), boxed, or follow ``####`` as in GSM8K files. Every row is checked before
    anything is queued. An answer that cannot be compared scores 0 and is counted (``rollout/unverifiable_frac``).
    ``Prompt.data``: ``answer``, the reference in one spelling; ``where``, ``FILE:LINE``; maybe ``solution``.
    """

    path: str | None = None
    """JSONL file of the training questions."""
    suite_paths: Mapping[str, str] = field(default_factory=dict)
    """Evaluation suites: name to JSONL file, for example ``{heldout: test.jsonl}``."""
    question_field: str = "question"
    answer_field: str = "answer"
    solution_field: str = "solution"
    """A worked answer, where a line has one; methods that follow an expert need it."""
    prompt_template: str = "{question}\nReason step by step and put the final answer within \\boxed{}.\n"
    r"""Text of a prompt; ``{question}`` is replaced, other braces stay. ``\n`` in two characters, as a command line
    gives it, is a line break."""
    prompt_format: Literal["auto", "chat", "raw"] = "auto"
    """``chat``: the text is what a user says, in the tokenizer's chat template; ``raw``: it is the whole prompt;
    ``auto``: chat if the tokenizer has a template. A template brings its own begin token and closes the text's last
    line."""
    system_prompt: str | None = None
    """System turn before the question; needs a chat template that knows one."""
    extract: Literal["boxed", "number", "boxed_or_number"] = "boxed_or_number"
    """Where a response's answer is: the last ``\\boxed{...}``, the last number, or the first of these that exists."""
    match: Literal["math", "exact"] = "math"
    """``math``: equal as numbers (0.5 = 1/2), as expressions (``(x+1)^2`` = ``x^2+2x+1``), lists and sets, by
    math-verify; ``exact``: the same text, up to what LaTeX ignores."""
    ignore_case: bool = False
    """Whether ``Yes`` equals ``yes`` and ``X`` equals ``x``."""
    bad_rows: BadRows = "refuse"
    """Rows that cannot be used (no text, no readable answer, ...): ``refuse`` the file, or ``drop`` and count them."""
    num_prompts: Annotated[int, Range(1)] | None = None
    """Distinct training questions, a random subset by ``problem_seed`` (subsets nest); null is all of them."""
    problem_seed: Seed = 0
    """Fixes the subset; the seed of a run only orders it."""

    def __post_init__(self) -> None:
        if self.path is None:
            raise ValueError(
                "task math: path is null; set task.path to a local JSONL file with one object a line "
                f"holding {self.question_field!r} and {self.answer_field!r}"
            )
        for name in self.suite_paths:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
                raise ValueError(
                    f"task math: suite_paths names a suite {name!r}, which becomes part of metric names; "
                    "use letters, digits, _ and -"
                )
        for file in (self.path, *self.suite_paths.values()):
            if not Path(file).is_file():
                raise ValueError(f"task math: {file} is not a file; set task.path and task.suite_paths to JSONL files")
        choices: dict[str, tuple[str, ...]] = {
            "extract": ("boxed", "number", "boxed_or_number"),
            "match": ("math", "exact"),
            "bad_rows": ("refuse", "drop"),
            "prompt_format": tuple(CHAT),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"task math: {name} is {getattr(self, name)!r}; set it to one of {', '.join(allowed)}")
        if "{question}" not in self.prompt_template:
            raise ValueError("task math: prompt_template lacks {question}; put it where the question goes")
        if self.system_prompt is not None and self.prompt_format == "raw":
            raise ValueError(
                "task math: prompt_format is raw, which has no turns, so system_prompt would be dropped: write it into "
                "prompt_template, or set prompt_format to chat"
            )
        if self.num_prompts is not None and self.num_prompts < 1:
            raise ValueError(f"task math: num_prompts is {self.num_prompts}; set it to 1 or more, or null for all")

    def train_prompts(self) -> list[Prompt]:
        """All questions of ``path``, or the first ``num_prompts`` of one fixed shuffle."""
        prompts = self._load("train", str(self.path))
        if self.num_prompts is None:
            return prompts
        if self.num_prompts > len(prompts):
            raise ValueError(
                f"task math: num_prompts is {self.num_prompts}, but {self.path} holds {len(prompts)}; ask for fewer"
            )
        random.Random(f"{self.problem_seed}/subset").shuffle(prompts)
        return prompts[: self.num_prompts]

    def suites(self) -> dict[str, list[Prompt]]:
        """The files of ``suite_paths``; none by default."""
        return {name: self._load(name, file) for name, file in self.suite_paths.items()}

    def notes(self) -> list[str]:
        """Rows that are left out, questions that occur twice, and evaluation questions that are trained on."""
        notes: list[str] = []
        seen: set[str] = set()
        for file in dict.fromkeys([str(self.path), *self.suite_paths.values()]):
            rows, flaws = self._read(file)
            if flaws:
                notes.append(f"{summary(file, flaws, len(rows) + len(flaws))}; they are left out (task.bad_rows=drop)")
            lines: dict[str, list[int]] = {}
            for row in rows:
                lines.setdefault(row.question, []).append(row.line)
            again = [line for found in lines.values() for line in found[1:]]
            if again:
                notes.append(f"{file}: {len(again)} of {len(rows)} questions occur before ({numbered(again)})")
            trained = [found[0] for question, found in lines.items() if question in seen]
            if trained:
                notes.append(f"{file}: {len(trained)} of {len(rows)} questions are trained on ({numbered(trained)})")
            seen = seen or set(lines)
        return [f"task math: {note}" for note in notes]

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """Compare the response's final answer with the reference; never raises on any ``text``.

        ``Verdict.answer`` is the reference for a correct answer, else the answer as exact number or in one spelling.
        """
        answer = self._canonical(self._extract(text) or "")
        if not answer:
            return Verdict(reward=0.0)
        gold = str(prompt.data["answer"])
        equal = answer == gold if self.match == "exact" else judge(gold, answer)
        if not equal:
            return Verdict(reward=0.0, answer=answer, comparable=equal is not None)
        return Verdict(reward=1.0, answer=gold, solution=" ".join(text.split()))

    def expert(self, prompt: Prompt) -> str | None:
        """The worked answer of the prompt's line, where it has one."""
        solution = prompt.data.get("solution")
        return None if solution is None else str(solution)

    def _extract(self, text: str) -> str | None:
        boxed = last_boxed(text) if self.extract != "number" else None
        return last_number(text) if boxed is None and self.extract != "boxed" else boxed

    def _canonical(self, answer: str) -> str:
        return canonical(answer, exact=self.match == "exact", ignore_case=self.ignore_case)

    def _read(self, file: str) -> tuple[list[Row], list[Flaw]]:
        fields = (self.question_field, self.answer_field, self.solution_field)
        return read_rows(file, fields, self._unreadable)

    def _load(self, suite: str, file: str) -> list[Prompt]:
        rows, flaws = self._read(file)
        usable = kept(file, rows, flaws, self.bad_rows)
        if flaws:
            log.warning("task math: %s; left out (task.bad_rows=drop)", summary(file, flaws, len(rows) + len(flaws)))
        return [self._prompt(f"{suite}-{number}", row, f"{file}:{row.line}") for number, row in enumerate(usable)]

    def _prompt(self, identity: str, row: Row, where: str) -> Prompt:
        text = with_line_breaks(self.prompt_template).replace("{question}", row.question)
        system = None if self.system_prompt is None else with_line_breaks(self.system_prompt)
        solution = {} if row.solution is None else {"solution": row.solution}
        data: dict[str, object] = {"answer": self._canonical(reference(row.answer)), "where": where, **solution}
        return Prompt(id=identity, text=text, data=data, chat=CHAT[self.prompt_format], system=system)

    def _unreadable(self, answer: str) -> str | None:
        """Why no response can give this answer, if so."""
        bare = reference(answer)
        if len(bare) > MAX_ANSWER_CHARACTERS:
            return f"has more than {MAX_ANSWER_CHARACTERS} characters"
        if not self._canonical(bare):
            return "holds nothing to compare with"
        if not balanced(bare):
            return "has braces that do not close"
        if self.extract == "number" and judge(self._canonical(bare), spelled(last_number(bare) or "")) is not True:
            return "is no number, as task.extract=number needs"
        return None


def reference(answer: str) -> str:
    """The final answer in a reference: what follows ``####``, the content of its last box, or all of it."""
    bare = answer.rpartition("####")[2].strip()
    boxed = last_boxed(bare)
    return bare if boxed is None else boxed
