"""Task of programming problems with tests: HumanEval's rows, or LiveCodeBench's.

Built by ``conf/task/humaneval.yaml`` and the presets beside it; read by the loop and by evaluation. It must not run a
program itself: responses and tests run in sandboxes, and where there is none the task refuses to be used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from trainer.batch.types import Prompt, Verdict
from trainer.contract.settings import ConfigError, Range
from trainer.tasks.heldout import heldout_notes, heldout_part, training_part
from trainer.tasks.sandbox.start import require_sandbox
from trainer.tasks.tables import MISSING, column, records, require_source
from trainer.tasks.template import CHAT, PromptFormat, with_line_breaks
from trainer.tasks.verifier_pool import shared_pool
from trainer.tasks.verifiers.code import program_of

COLUMNS = {
    "humaneval": ("prompt", "test", "entry_point"),
    "livecodebench": ("question_content", "starter_code", "public_test_cases"),
}
_HEADER = "from typing import *\n"  # the starter code of LiveCodeBench uses List without saying so
_COMPLETE = "Complete this function. Answer with the whole function in one ```python block.\n```python\n{question}```\n"
_SOLVE = "{question}\nAnswer with one ```python block.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTask:
    """Reward 1.0 for a program that passes all its tests, else 0.0. ``Verdict.answer`` is the program, spaces apart.

    The code of a response is its last fenced block, or all of it (see
    :func:`trainer.tasks.verifiers.code.program_of`).
    """

    path: str | None = None
    """A source as in ``task=math``."""
    layout: Literal["humaneval", "livecodebench"] = "humaneval"
    """Columns: ``prompt``, ``test``, ``entry_point`` and maybe ``canonical_solution``; or ``question_content``,
    ``starter_code``, ``public_test_cases`` (JSON) and, for functions, ``metadata`` (JSON with ``func_name``)."""
    heldout_every: Annotated[int, Range(1)] = 4
    """Every so many-th problem, from the first, is in suite ``heldout`` and not trained on; 1 leaves none to train
    on."""
    prompt_template: str | None = None
    """Text around ``{question}``; null asks for a fenced block. ``{question}`` alone with ``prompt_format=raw`` lets a
    base model go on with the function."""
    prompt_format: PromptFormat = "auto"
    system_prompt: str | None = None
    verify_seconds: Annotated[float, Range(0.1, 600)] = 5.0
    """For all tests of a function, and for each input of a program."""
    memory_mib: Annotated[int, Range(64, 1 << 20)] = 512
    """Of each process of a program."""

    def __post_init__(self) -> None:
        if "{question}" not in self._template():
            raise ConfigError("task.prompt_template lacks {question}; put it where the question goes")

    def train_prompts(self) -> list[Prompt]:
        """Problems that are not held out."""
        return training_part(self._prompts("train"), self.heldout_every, f"task code: {self.path}")

    def suites(self) -> dict[str, list[Prompt]]:
        """``heldout``."""
        return {"heldout": heldout_part(self._prompts("heldout"), self.heldout_every)}

    def notes(self) -> list[str]:
        """What training on an evaluation set costs."""
        return heldout_notes(self.heldout_every, f"task code: {self.path}")

    def verify(self, prompt: Prompt, text: str) -> Verdict:
        """See the class; never raises on any ``text``."""
        return self.verify_all([(prompt, text)])[0]

    def verify_all(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """:meth:`verify` of each pair, in parallel."""
        most = max((len(prompt.data.get("cases", ())) for prompt, _ in pairs), default=1)  # type: ignore[arg-type]
        verifier = {"_target_": "trainer.tasks.verifiers.code.Code", "seconds": self.verify_seconds}
        # A sandbox keeps its own time; this is for one that cannot start.
        pool = shared_pool({"code": verifier | {"memory_mib": self.memory_mib}}, (self.verify_seconds + 5) * (most + 1))
        scores = pool.scores([(text, prompt.data) for prompt, text in pairs])
        return [_verdict(prompt, text, score["code"]) for (prompt, text), score in zip(pairs, scores, strict=True)]

    def expert(self, prompt: Prompt) -> str | None:
        """The canonical solution, as a response gives it."""
        solution = prompt.data.get("solution")
        return None if solution is None else f"```python\n{prompt.data['prompt']}{solution}\n```"

    def _template(self) -> str:
        template = {"humaneval": _COMPLETE, "livecodebench": _SOLVE}[self.layout]
        return template if self.prompt_template is None else with_line_breaks(self.prompt_template)

    def _prompts(self, suite: str) -> list[Prompt]:
        if self.path is None:
            raise ConfigError(
                "task code: task.path is not set; give a JSON-lines or Parquet file of problems with tests"
            )
        require_source(self.path)
        require_sandbox()
        rows = list(records(self.path, COLUMNS[self.layout], ("canonical_solution", "metadata")))
        if not rows:
            raise ValueError(f"task code: {self.path} is empty; give a file with problems")
        system = None if self.system_prompt is None else with_line_breaks(self.system_prompt)
        prompts = []
        for number, (line, row) in enumerate(rows):
            where = f"{self.path}:{line}"
            question, data = self._problem(row, where)
            prompts.append(
                Prompt(
                    id=f"{suite}-{number}",
                    text=self._template().replace("{question}", question),
                    data=data | {"where": where},
                    chat=CHAT[self.prompt_format],
                    system=system,
                )
            )
        return prompts

    def _problem(self, row: dict[str, Any] | None, where: str) -> tuple[str, dict[str, Any]]:
        if row is None:
            raise ValueError(f"task code: {where} is no JSON object; mend the file")
        missing = [name for name in COLUMNS[self.layout] if not isinstance(column(row, name), str)]
        if missing:
            raise ValueError(
                f"task code: {where} has no text in column {missing[0]!r} (it has {', '.join(row)}); choose task.layout"
            )
        if self.layout == "humaneval":
            solution = column(row, "canonical_solution")
            known = {} if solution is MISSING else {"solution": solution}
            return row["prompt"], {"prompt": row["prompt"], "test": row["test"], "name": row["entry_point"]} | known
        try:
            return _question(row), _cases(row)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"task code: {where}: public_test_cases cannot be read as LiveCodeBench's ({error}); mend the file"
            ) from error


def _question(row: Mapping[str, Any]) -> str:
    starter = row["starter_code"].strip()
    return f"{row['question_content']}\n\n```python\n{starter}\n```" if starter else row["question_content"]


def _cases(row: Mapping[str, Any]) -> dict[str, Any]:
    """``testtype`` ``stdin``: two texts; ``functional``: an argument a line and the result, in JSON."""
    tests = json.loads(row["public_test_cases"])
    if not tests:
        raise ValueError("there is no test")
    if tests[0]["testtype"] == "stdin":
        return {"cases": [[str(test["input"]), str(test["output"])] for test in tests]}
    cases = [
        [[json.loads(line) for line in test["input"].splitlines() if line.strip()], json.loads(test["output"])]
        for test in tests
    ]
    return {"name": str(json.loads(row["metadata"])["func_name"]), "prompt": _HEADER, "cases": cases}


def _verdict(prompt: Prompt, text: str, score: float | None) -> Verdict:
    name = prompt.data.get("name")
    program = program_of(text, str(prompt.data.get("prompt", "")), None if name is None else str(name))
    spelling = " ".join(program.split())
    return Verdict(
        reward=score or 0.0, answer=spelling or None, solution=spelling if score else None, failed=score is None
    )
