"""A process that scores responses by verifiers, one at a time; started by :mod:`trainer.tasks.verifier_pool`.

First line of input: the limit in seconds and the verifiers' configurations. Then a line each way for every response.
What a verifier prints goes nowhere, so that it cannot be taken for an answer.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

from trainer.contract.components import build_component
from trainer.tasks.verifiers.base import Verifier

MEMORY_BYTES = 4 << 30


def main() -> None:
    """Answer until the input ends."""
    questions, answers = _own_channels()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # those are for the run, which closes the pipe when it ends
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    start = json.loads(questions.readline())
    verifiers: dict[str, Verifier] = {
        name: build_component(node, f"task.verifiers.{name}") for name, node in start["verifiers"].items()
    }
    _say(answers, "ready")
    for line in questions:
        # Whoever asked kills us at the limit; should it be gone, the kernel does (nobody handles SIGALRM).
        signal.setitimer(signal.ITIMER_REAL, 2 * start["seconds"] + 1)
        response, data = json.loads(line)
        _say(answers, {name: _score(verifier, response, data) for name, verifier in verifiers.items()})
        signal.setitimer(signal.ITIMER_REAL, 0)
    os._exit(0)


def _own_channels() -> tuple[IO[str], IO[str]]:
    """The pipes to the parent, under descriptors that no library and no ``print`` knows."""
    questions, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    return questions, answers


def _score(verifier: Verifier, response: str, data: Mapping[str, object]) -> float | None:
    """The score, or None for a verifier that raises or gives no number from -1 to 1."""
    try:
        score = float(verifier.score(response, data))
    except Exception:  # whatever somebody's code raises
        return None
    return score if math.isfinite(score) and -1 <= score <= 1 else None


def _say(answers: IO[str], content: Any) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
