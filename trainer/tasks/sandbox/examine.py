"""Runs in a sandbox: tests a function that runs in another sandbox; exit code 0 if all tests pass.

``test`` is Python that defines ``check(candidate)``, as in HumanEval; ``cases`` are pairs of arguments and result.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from typing import Any

LONGEST = 1 << 20
"""Characters of one answer."""


def candidate(*arguments: object) -> Any:
    """What the response's function returns."""
    sys.stdout.write(repr(arguments) + "\n")
    sys.stdout.flush()
    answer = sys.stdin.readline(LONGEST)
    if not answer.endswith("\n") or answer == "!\n":
        raise RuntimeError("the response gave no answer")
    return ast.literal_eval(answer)


def main() -> None:
    """Raise for a test that fails."""
    with os.fdopen(int(sys.argv[1])) as file:
        request = json.load(file)
    for arguments, result in request.get("cases", ()):
        answer = candidate(*arguments)
        assert (list(answer) if isinstance(answer, tuple) else answer) == result
    if "test" in request:
        # The prompt comes first: some tests call a function that it defines.
        space: dict[str, Any] = {"__name__": "test"}
        exec(compile(request["prompt"], "prompt", "exec"), space)
        space[request["name"]] = candidate
        exec(compile(request["test"], "test", "exec"), space)
        space["check"](candidate)


if __name__ == "__main__":
    main()
