"""Task from tables of questions and answers, for real models: local files, or data sets of the hub.

Built by ``conf/task/math.yaml`` and the presets beside it; read by the loop and by evaluation. It must not evaluate a
response: answers are compared as text, exact numbers or expressions that math-verify parses.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Literal

from trainer.batch.types import CORRECT_ABOVE, Prompt, Verdict
from trainer.contract.settings import Range, Seed
from trainer.tasks.answers import (
    MAX_ANSWER_CHARACTERS,
    Extract,
    balanced,
    canonical,
    choice,
    extracted,
    last_number,
    reference,
    spelled,
)
from trainer.tasks.compare import quantity
from trainer.tasks.diversity import Selection, Subset, at_random, selection, shuffled
from trainer.tasks.grader import judge
from trainer.tasks.jsonl_settings import check_settings
from trainer.tasks.rows import BadRows, Flaw, Row, numbered, read_rows, summary, usable_rows, without_repeats
from trainer.tasks.tables import unit
from trainer.tasks.template import CHAT, answering, asking, with_line_breaks
from trainer.tasks.verifier_pool import shared_pool
from trainer.tasks.weighted import DECIDES, checked_weights, combined

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlTask:
    """Questions with a known final answer; reward 1.0 when the response's final answer equals it, else 0.0.

    The reference answer may be bare (``42``), boxed, or follow ``####`` as in GSM8K files. Every row is checked before
    anything is queued. An answer that cannot be compared scores 0 and is counted (``rollout/unverifiable_frac``).
    ``Prompt.data``: ``answer``, the reference in one spelling; ``where``, ``FILE:LINE``; maybe ``solution``.
    """

    path: str | None = None
    """Training questions: a JSON-lines, CSV or Parquet file, or ``hub:OWNER/NAME/CONFIGURATION:SPLIT``."""
    suite_paths: Mapping[str, str] = field(default_factory=dict)
    """Evaluation suites: name to a source like ``path``, for example ``{heldout: test.jsonl}``."""
    suite_settings: Mapping[str, dict[str, str]] = field(default_factory=dict)
    """Suites with columns or a prompt of their own: ``{aime24: {question_field: problem}}``; the settings are those of
    :data:`trainer.tasks.jsonl_settings.OF_A_SUITE`."""
    question_field: str = "question"
    """Column of the question; ``a.b`` is ``b`` in the mapping ``a``, ``a.0`` the first item of the list ``a``."""
    answer_field: str = "answer"
    solution_field: str = "solution"
    """A worked answer, where a row has one; methods that follow an expert need it."""
    prompt_template: str | None = None
    r"""Text of a prompt; ``{question}`` is replaced, other braces stay. ``\n`` in two characters, as a command line
    gives it, is a line break. null: the question and an instruction that fits ``extract``."""
    prompt_format: Literal["auto", "chat", "raw"] = "auto"
    """``chat``: the text is what a user says, in the tokenizer's chat template; ``raw``: it is the whole prompt;
    ``auto``: chat if the tokenizer has a template. A template brings its own begin token and closes the text's last
    line."""
    system_prompt: str | None = None
    """System turn before the question; needs a chat template that knows one."""
    shots: Annotated[int, Range(0, 64)] = 0
    """Few-shot examples before every question: turns of a chat, or text. They are the first rows of ``shots_path``."""
    shots_path: str | None = None
    """Source of the examples, with the columns of ``path``; null is ``path`` itself, whose first rows are then not
    trained on."""
    extract: Extract = "boxed_or_number"
    """Where a response's answer is: the last ``\\boxed{...}``, the last number, the first of these that exists, the
    last ``<answer>...</answer>``, or what follows the last ``answer_marker`` on its line."""
    answer_marker: str = "Answer:"
    """For ``extract=marker``, in any case (``####`` is GSM8K's)."""
    match: Literal["math", "exact", "numeric", "choice"] = "math"
    """``math``: equal as numbers (0.5 = 1/2), as expressions (``(x+1)^2`` = ``x^2+2x+1``), lists and sets, by
    math-verify; ``exact``: the same text, up to what LaTeX ignores; ``numeric``: numbers, within ``tolerance``;
    ``choice``: the same letter (``B`` = ``(b)``)."""
    tolerance: Annotated[float, Range(0, 1)] = 0.0
    """Largest relative error of an answer with ``match=numeric``."""
    ignore_case: bool = False
    """Whether ``Yes`` equals ``yes`` and ``X`` equals ``x``."""
    bad_rows: BadRows = "refuse"
    """Rows that cannot be used (no text, no readable answer, ...): ``refuse`` the file, or ``drop`` and count them."""
    repeats: Literal["keep", "drop", "refuse"] = "keep"
    """Questions that occur again in the training file: trained on as often, once, or not at all."""
    num_prompts: Annotated[int, Range(1)] | None = None
    """Distinct training questions, a subset by ``problem_seed`` (subsets nest); null is all of them."""
    subset: Subset = "random"
    """See :data:`trainer.tasks.diversity.Subset`; clusters are K-means on the base model's embeddings of prompts."""
    clusters: Annotated[int, Range(1, 100_000)] = 64
    """Of the whole training set; the paper has 1000 for 17 000 prompts."""
    problem_seed: Seed = 0
    """Fixes the subset; the seed of a run only orders it."""
    verifiers: Mapping[str, Any] = field(default_factory=dict)
    """Further verifiers by name, each a ``_target_`` with its settings; their weighted scores are added to the reward
    (:mod:`trainer.tasks.weighted`). One named ``answer`` takes the place of the comparison."""
    verify_seconds: Annotated[float, Range(0.1, 3600)] = 10.0
    """Longest time that the verifiers may take for one response, before they are killed and score 0."""

    def __post_init__(self) -> None:
        check_settings(self)

    def train_prompts(self) -> list[Prompt]:
        """All questions of ``path``, or the first ``num_prompts`` of one fixed shuffle."""
        at_random(self.selection())
        return self._load("train", str(self.path)) if self.num_prompts is None else self.pool()[: self.num_prompts]

    def selection(self) -> Selection | None:
        """By ``subset``."""
        return selection(self.subset, self.num_prompts, self.clusters)

    def pool(self) -> list[Prompt]:
        """All questions of ``path``, shuffled by ``problem_seed``."""
        prompts = self._load("train", str(self.path))
        if (self.num_prompts or 0) > len(prompts):
            raise ValueError(
                f"task math: num_prompts is {self.num_prompts}, but {self.path} holds {len(prompts)}; ask for fewer"
            )
        return shuffled(prompts, self.problem_seed)

    def suites(self) -> dict[str, list[Prompt]]:
        """The files of ``suite_paths``; none by default."""
        return {name: self._load(name, source) for name, source in self.suite_paths.items()}

    def notes(self) -> list[str]:
        """Rows that are left out, questions that occur twice, and evaluation questions that are trained on."""
        notes: list[str] = []
        training_questions: set[str] = set()
        for suite, file in {"train": str(self.path), **self.suite_paths}.items():
            if suite != "train" and file == self.path:
                continue
            rows, flaws = self._read(suite, file)
            if flaws:
                notes.append(f"{summary(file, flaws, len(rows) + len(flaws))}; they are left out (task.bad_rows=drop)")
            lines: dict[str, list[int]] = {}
            for row in rows:
                lines.setdefault(row.question, []).append(row.line)
            repeated = [line for occurrences in lines.values() for line in occurrences[1:]]
            if repeated:
                notes.append(
                    f"{file}: {len(repeated)} of {len(rows)} questions occur before ({numbered(repeated, unit(file))})"
                )
            trained = [occurrences[0] for question, occurrences in lines.items() if question in training_questions]
            if trained:
                notes.append(
                    f"{file}: {len(trained)} of {len(rows)} questions are trained on ({numbered(trained, unit(file))})"
                )
            training_questions = training_questions or set(lines)
        return [f"task math: {note}" for note in notes]

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """Compare the response's final answer with the reference; never raises on any ``text``.

        ``Verdict.answer`` is the reference for a correct answer, else the answer as exact number or in one spelling.
        """
        return self.verify_all([(prompt, text)])[0]

    def verify_all(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """:meth:`verify` of each pair; the further verifiers run in parallel processes."""
        if not self.verifiers:
            return [self._compared(prompt, text) for prompt, text in pairs]
        weights = checked_weights(self.verifiers)
        pool = shared_pool(self.verifiers, self.verify_seconds)
        scores = pool.scores([(text, prompt.data) for prompt, text in pairs])
        verdicts = [
            self._decided(text, by_verifier[DECIDES]) if DECIDES in by_verifier else self._compared(prompt, text)
            for (prompt, text), by_verifier in zip(pairs, scores, strict=True)
        ]
        return [combined(verdict, by_verifier, weights) for verdict, by_verifier in zip(verdicts, scores, strict=True)]

    def _compared(self, prompt: Prompt, text: str) -> Verdict:
        answer = self._canonical(self._extract(text) or "")
        if not answer:
            return Verdict(reward=0.0)
        gold = str(prompt.data["answer"])
        equal = self._equal(gold, answer)
        if not equal:
            return Verdict(reward=0.0, answer=answer, comparable=equal is not None)
        return Verdict(reward=1.0, answer=gold, solution=" ".join(text.split()))

    def _decided(self, text: str, score: float | None) -> Verdict:
        """The verdict of a verifier that takes the place of the comparison."""
        reward = max(0.0, score or 0.0)
        answer = self._canonical(self._extract(text) or "") or None
        solution = " ".join(text.split()) if reward > CORRECT_ABOVE else None
        return Verdict(reward=reward, answer=answer, solution=solution)

    def _equal(self, gold: str, answer: str) -> bool | None:
        if self.match in ("exact", "choice"):
            return gold == answer
        if self.match == "math":
            return judge(gold, answer)
        expected, value = quantity(gold)[0], quantity(answer)[0]
        if expected is None or value is None:
            return False
        return abs(value - expected) <= Fraction(self.tolerance) * abs(expected)

    def expert(self, prompt: Prompt) -> str | None:
        """The worked answer of the prompt's line, where it has one."""
        solution = prompt.data.get("solution")
        return None if solution is None else str(solution)

    def _extract(self, text: str) -> str | None:
        return extracted(text, self.extract, self.answer_marker)

    def _canonical(self, answer: str) -> str:
        if self.match == "choice":
            return choice(answer)
        return canonical(answer, exact=self.match == "exact", ignore_case=self.ignore_case)

    def template(self, suite: str = "train") -> str:
        """Text of a suite's prompts around ``{question}``."""
        template = self.suite_settings.get(suite, {}).get("prompt_template", self.prompt_template)
        return asking(self.extract, self.answer_marker, template)

    def _read(self, suite: str, source: str) -> tuple[list[Row], list[Flaw]]:
        overrides = self.suite_settings.get(suite, {})
        question = overrides.get("question_field", self.question_field)
        answer = overrides.get("answer_field", self.answer_field)
        return read_rows(source, (question, answer, self.solution_field), self._unreadable)

    def _load(self, suite: str, source: str) -> list[Prompt]:
        rows, flaws = self._read(suite, source)
        usable = usable_rows(source, rows, flaws, self.bad_rows)
        if flaws:
            log.warning("task math: %s; left out (task.bad_rows=drop)", summary(source, flaws, len(rows) + len(flaws)))
        usable = self._trained(source, usable) if suite == "train" else usable
        template, examples = self.template(suite), self._examples()
        return [
            self._prompt(f"{suite}-{number}", template.replace("{question}", row.question), row, source, examples)
            for number, row in enumerate(usable)
        ]

    def _trained(self, source: str, rows: list[Row]) -> list[Row]:
        """The rows to train on: without repeats where asked, and without those that are examples."""
        distinct = rows if self.repeats == "keep" else without_repeats(rows)
        if self.repeats == "refuse" and len(distinct) < len(rows):
            raise ValueError(
                f"task math: {source}: {len(rows) - len(distinct)} of {len(rows)} questions occur before; leave them "
                "out with task.repeats=drop or train on them as often with task.repeats=keep"
            )
        example_questions = {question for question, _ in self._shown()} if self.shots_path is None else set()
        remaining = [row for row in distinct if row.question not in example_questions]
        if not remaining:
            raise ValueError(f"task math: all {len(distinct)} questions of {source} are examples; lower task.shots")
        return remaining

    def _shown(self) -> list[tuple[str, str]]:
        """Question and answer of every few-shot example."""
        if not self.shots:
            return []
        source = self.shots_path or str(self.path)
        rows = without_repeats(self._read("train", source)[0])[: self.shots]
        if len(rows) < self.shots:
            raise ValueError(
                f"task math: shots is {self.shots}, but {source} holds {len(rows)} questions; ask for fewer"
            )
        return [
            (row.question, row.solution or answering(reference(row.answer), self.extract, self.answer_marker))
            for row in rows
        ]

    def _examples(self) -> tuple[tuple[str, str], ...]:
        template = self.template()
        return tuple((template.replace("{question}", question), answered) for question, answered in self._shown())

    def _prompt(self, identity: str, text: str, row: Row, source: str, examples: tuple[tuple[str, str], ...]) -> Prompt:
        system = None if self.system_prompt is None else with_line_breaks(self.system_prompt)
        solution = {} if row.solution is None else {"solution": row.solution}
        answer, where = self._canonical(reference(row.answer)), f"{source}:{row.line}"
        for_verifiers = {"question": row.question} if self.verifiers else {}
        data: dict[str, object] = {"answer": answer, "where": where, **solution, **for_verifiers}
        chat = CHAT[self.prompt_format]
        return Prompt(id=identity, text=text, data=data, chat=chat, system=system, examples=examples)

    def _unreadable(self, answer: str) -> str | None:
        """Why no response can give this answer, if so."""
        bare = reference(answer)
        if len(bare) > MAX_ANSWER_CHARACTERS:
            return f"has more than {MAX_ANSWER_CHARACTERS} characters"
        if not self._canonical(bare):
            return "holds nothing to compare with"
        if not balanced(bare):
            return "has braces that do not close"
        if self.match == "numeric" and quantity(self._canonical(bare))[0] is None:
            return "is no number, as task.match=numeric needs"
        if self.extract == "number" and judge(self._canonical(bare), spelled(last_number(bare) or "")) is not True:
            return "is no number, as task.extract=number needs"
        return None
