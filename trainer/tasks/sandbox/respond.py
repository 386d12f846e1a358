"""Runs in a sandbox: defines a response's function, and answers calls to it, one line of input and output per call.

Arguments and results are Python literals, so that only values reach the tests, which run in another sandbox. The answer
of a function that raises is ``!``.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from typing import Any


def main() -> None:
    """Until the calls end."""
    with os.fdopen(int(sys.argv[1])) as file:
        request = json.load(file)
    calls, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    space: dict[str, Any] = {"__name__": "response"}
    exec(compile(request["program"], "response", "exec"), space)
    name = request["name"]
    function = space[name] if name in space else getattr(space["Solution"](), name)
    for call in calls:
        try:
            answer = repr(function(*ast.literal_eval(call)))
        except Exception:  # whatever a response raises
            answer = "!"
        answers.write(answer + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
