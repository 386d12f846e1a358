"""Task of instructions that a program can check: rows in IF-Eval's columns.

Built by ``conf/task/ifeval.yaml``; read by the loop and by evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from trainer.batch.types import Prompt, Verdict
from trainer.contract.settings import ConfigError, Range
from trainer.tasks.heldout import heldout_notes, heldout_part, training_part
from trainer.tasks.tables import MISSING, column, records, require_source
from trainer.tasks.template import CHAT, PromptFormat, with_line_breaks
from trainer.tasks.verifier_pool import shared_pool
from trainer.tasks.verifiers.instructions import LANGUAGE, why_unknown

COLUMNS = ("prompt", "instruction_id_list", "kwargs")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionTask:
    """Reward 1.0 for a response that follows all instructions of its prompt, else half the share that it follows.

    ``Verdict.answer`` is the response, spaces apart. Rows that ask for a language are left out where the package
    langdetect is missing.
    """

    path: str | None = None
    """A source as in ``task=math``."""
    heldout_every: Annotated[int, Range(1)] = 4
    """Every so many-th prompt, from the first, is in suite ``heldout`` and not trained on; 1 leaves none to train
    on."""
    loose: bool = False
    """See :class:`trainer.tasks.verifiers.instructions.Instructions`."""
    prompt_format: PromptFormat = "auto"
    system_prompt: str | None = None
    verify_seconds: Annotated[float, Range(0.1, 600)] = 10.0

    def train_prompts(self) -> list[Prompt]:
        """Prompts that are not held out."""
        return training_part(self._prompts("train"), self.heldout_every, f"task ifeval: {self.path}")

    def suites(self) -> dict[str, list[Prompt]]:
        """``heldout``."""
        return {"heldout": heldout_part(self._prompts("heldout"), self.heldout_every)}

    def notes(self) -> list[str]:
        """How many rows were left out, and what training on an evaluation set costs."""
        rows, notes = self._rows(), heldout_notes(self.heldout_every, f"task ifeval: {self.path}")
        if unjudged := sum(not _can_be_judged(row) for _, row in rows):
            notes.append(
                f"task ifeval: {unjudged} of {len(rows)} rows ask for a language and are left out: install langdetect"
            )
        return notes

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """See the class; never raises on any ``text``."""
        return self.verify_all([(prompt, text)])[0]

    def verify_all(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """:meth:`verify` of each pair, in parallel."""
        verifier = {"_target_": "trainer.tasks.verifiers.instructions.Instructions", "loose": self.loose}
        pool = shared_pool({"followed": verifier}, self.verify_seconds)
        scores = pool.scores([(text, prompt.data) for prompt, text in pairs])
        return [_verdict(text, score["followed"]) for (_, text), score in zip(pairs, scores, strict=True)]

    def expert(self, prompt: Prompt) -> str | None:
        """None: IF-Eval has no responses."""
        return None

    def _rows(self) -> list[tuple[str, dict[str, Any]]]:
        """Where a row is, and the row; each looked at."""
        if self.path is None:
            raise ConfigError(
                "task ifeval: task.path is not set; give a JSON-lines or Parquet file in IF-Eval's columns"
            )
        require_source(self.path)
        rows = [(f"{self.path}:{line}", row) for line, row in records(self.path, COLUMNS)]
        if not rows:
            raise ValueError(f"task ifeval: {self.path} is empty; give a file with prompts")
        for where, row in rows:
            if (problem := _problem(row)) is not None:
                raise ValueError(f"task ifeval: {where} {problem}; mend the file")
        return rows

    def _prompts(self, suite: str) -> list[Prompt]:
        system = None if self.system_prompt is None else with_line_breaks(self.system_prompt)
        return [
            Prompt(
                id=f"{suite}-{number}",
                text=row["prompt"],
                data={
                    "instructions": list(row["instruction_id_list"]),
                    "arguments": [_set(arguments) for arguments in row["kwargs"]],
                    "where": where,
                },
                chat=CHAT[self.prompt_format],
                system=system,
            )
            for number, (where, row) in enumerate(self._rows())
            if _can_be_judged(row)
        ]


def _problem(row: Any) -> str | None:
    """What keeps a row from being one of IF-Eval's."""
    if not isinstance(row, dict):
        return "is no JSON object"
    prompt, names, arguments = (column(row, name) for name in COLUMNS)
    if not isinstance(prompt, str) or not prompt.strip():
        return f"has no text in column 'prompt' (it has {', '.join(row)})"
    if names is MISSING or not isinstance(names, list) or not names:
        return "has no list of names in column 'instruction_id_list'"
    if not isinstance(arguments, list) or len(arguments) != len(names):
        return "has not one mapping for each instruction in column 'kwargs'"
    unknown = (why_unknown(str(name)) for name in names if name != LANGUAGE)
    return next(filter(None, unknown), None)


def _can_be_judged(row: Mapping[str, Any]) -> bool:
    return all(why_unknown(str(name)) is None for name in row["instruction_id_list"])


def _set(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments that are given: a table has every argument as a column, with null where an instruction lacks it."""
    return {name: value for name, value in (arguments or {}).items() if value is not None}


def _verdict(text: str, followed: float | None) -> Verdict:
    spelling = " ".join(text.split())
    solved = followed == 1
    return Verdict(
        reward=1.0 if solved else (followed or 0.0) / 2,
        answer=spelling or None,
        solution=spelling if solved else None,
        failed=followed is None,
    )
