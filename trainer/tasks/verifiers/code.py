"""Programs judged by tests, in a sandbox (:mod:`trainer.tasks.sandbox`).

The tests of a function run in a second sandbox and hear nothing but the values that it returns, so that no program can
write its own verdict by leaving early, or by changing ``assert``, ``==`` or the tests.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from trainer.contract.settings import Range
from trainer.tasks.sandbox.start import INSIDE, MIB, Limits, outcome, started, waited

_BLOCK = re.compile(r"```(?:[Pp]ython[0-9]?|py)?[ \t]*\n([\s\S]*?)(?:\n[ \t]*```|\Z)")
_END = re.compile(r"\n(?:class|def|#|if|print|```)")
_RESPOND, _EXAMINE = (INSIDE.with_name(name).read_text(encoding="utf-8") for name in ("respond.py", "examine.py"))
_MAIN = """
import json, os, sys
with os.fdopen(int(sys.argv[1])) as file:
    program = json.load(file)
sys.argv = ["program"]
exec(compile(program, "program", "exec"), {"__name__": "__main__"})
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """1 for a program that passes all tests, 0 otherwise.

    ``data`` has ``name`` and ``prompt`` and ``test`` (Python that defines ``check(candidate)``: HumanEval), or
    ``name`` and ``cases`` (pairs of arguments and result; the function may be a method of ``Solution``), or ``cases``
    alone (pairs of standard input and output, compared line by line without the spaces at their ends).
    """

    weight: float = 1.0
    seconds: Annotated[float, Range(0.1, 600)] = 5.0
    """For all tests of a function, and for each input of a program."""
    memory_mib: Annotated[int, Range(64, 1 << 20)] = 512
    """Of each of at most four processes."""

    def score(self, response: str, data: Mapping[str, Any]) -> float:
        """See the class."""
        program = program_of(response, str(data.get("prompt", "")), data.get("name"))
        limits = Limits(seconds=self.seconds, memory=self.memory_mib * MIB)
        if "name" in data:
            return float(passes(program, data, limits))
        return float(all(_prints(program, stdin, expected, limits) for stdin, expected in data["cases"]))


def program_of(response: str, prompt: str, name: str | None) -> str:
    """The program of a response: its last fenced block of code, else all of it.

    For a function it goes after ``prompt``, whose imports and helpers it may use: as the function anew, or as the rest
    of the one that the prompt begins, up to the next statement at the margin (arXiv 2107.03374).
    """
    blocks = _BLOCK.findall(response)
    code: str = textwrap.dedent(blocks[-1]) if blocks else response
    if name is None or not prompt:
        return code
    if re.search(rf"^[ \t]*def {re.escape(name)}\b", code, re.MULTILINE):
        return f"{prompt}\n{code}\n"
    body = blocks[-1] if blocks else response
    end = _END.search(body)
    return prompt + (body[: end.start()] if end else body) + "\n"


def passes(program: str, data: Mapping[str, Any], limits: Limits) -> bool:
    """Whether a function passes its tests, each in its own sandbox."""
    tests = {key: data[key] for key in ("name", "prompt", "test", "cases") if key in data}
    deadline = time.monotonic() + limits.seconds + 1
    request = {"program": program, "name": data["name"]}
    pipe = subprocess.PIPE
    with started(_RESPOND, request, limits, stdin=pipe, stdout=pipe) as responds:
        assert responds.stdin is not None and responds.stdout is not None
        with started(_EXAMINE, tests, limits, stdin=responds.stdout, stdout=responds.stdin) as examines:
            # Only the two of them hold the pipes now, so that the end of one is the end of the other's.
            responds.stdin.close()
            responds.stdout.close()
            return waited(examines, deadline) == 0


def _prints(program: str, stdin: str, expected: str, limits: Limits) -> bool:
    result = outcome(_MAIN, program, limits, stdin.encode())
    return result.code == 0 and _lines(result.output.decode(errors="replace")) == _lines(expected)


def _lines(text: str) -> Sequence[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
