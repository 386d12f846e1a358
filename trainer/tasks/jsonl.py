"""Task from local JSONL files of questions and answers, for real models: one JSON object a line.

Built by ``conf/task/math.yaml``; read by the loop and by evaluation. It must not reach the network and must not
evaluate a response: answers are compared as exact numbers or as normalised text.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from trainer.settings import Range, Seed
from trainer.tasks.answers import canonical_answer, last_boxed, last_number
from trainer.types import Prompt, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlTask:
    """Questions with a known final answer; reward 1.0 when the response's final answer equals it, else 0.0.

    The reference answer may be bare (``42``), boxed, or follow ``####`` as in GSM8K files.
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
    """Text of a prompt; ``{question}`` is replaced, other braces stay."""
    extract: Literal["boxed", "number", "boxed_or_number"] = "boxed_or_number"
    """Where a response's answer is: the last ``\\boxed{...}``, the last number, or the first of these that exists."""
    match: Literal["numeric", "exact"] = "numeric"
    """``numeric``: equal as exact fractions (0.5 = 1/2), other answers as normalised text; ``exact``: text only."""
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
        for name, allowed in (("extract", ("boxed", "number", "boxed_or_number")), ("match", ("numeric", "exact"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"task math: {name} is {getattr(self, name)!r}; set it to one of {', '.join(allowed)}")
        if "{question}" not in self.prompt_template:
            raise ValueError("task math: prompt_template lacks {question}; put it where the question goes")
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

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """Compare the response's final answer with the reference; never raises on any ``text``."""
        found = self._extract(text)
        answer = canonical_answer(found or "", self.match == "numeric")
        if not answer:
            return Verdict(reward=0.0)
        if answer != prompt.data["answer"]:
            return Verdict(reward=0.0, answer=answer)
        return Verdict(reward=1.0, answer=answer, solution=" ".join(text.split()))

    def expert(self, prompt: Prompt) -> str | None:
        """The worked answer of the prompt's line, where it has one."""
        solution = prompt.data.get("solution")
        return None if solution is None else str(solution)

    def _extract(self, text: str) -> str | None:
        boxed = last_boxed(text) if self.extract != "number" else None
        return last_number(text) if boxed is None and self.extract != "boxed" else boxed

    def _load(self, suite: str, file: str) -> list[Prompt]:
        prompts: list[Prompt] = []
        with open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    prompts.append(self._prompt(f"{suite}-{len(prompts)}", line, f"{file}, line {number}"))
        if not prompts:
            raise ValueError(f"task math: {file} holds no question; put one JSON object on each line")
        return prompts

    def _prompt(self, identity: str, line: str, where: str) -> Prompt:
        try:
            record = json.loads(line)
            question, answer = str(record[self.question_field]), str(record[self.answer_field])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"task math: {where} is not a JSON object with {self.question_field!r} and {self.answer_field!r}; "
                "mend the line or set task.question_field and task.answer_field"
            ) from error
        bare = answer.rpartition("####")[2].strip()
        boxed = last_boxed(bare)
        reference = canonical_answer(bare if boxed is None else boxed, self.match == "numeric")
        text = self.prompt_template.replace("{question}", question)
        solution = {"solution": str(record[self.solution_field])} if record.get(self.solution_field) else {}
        return Prompt(id=identity, text=text, data={"answer": reference, **solution})
