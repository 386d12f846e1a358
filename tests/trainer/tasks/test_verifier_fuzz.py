"""20 000 hostile strings through the comparison of answers: none raises, none is correct, in a bounded time."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from trainer.tasks.answers import canonical, extracted, spelled
from trainer.tasks.jsonl import JsonlTask

PIECES = [
    "\\boxed{",
    "}",
    "{",
    "\\frac",
    "\\sqrt",
    "^",
    "_",
    "9" * 50,
    "1/0",
    "0.\\overline{9}",
    "10^{99}",
    "e",
    "\\",
    "$",
    "%",
    "<answer>",
    "</answer>",
    "####",
    "Answer:",
    " ",
    "\n",
    "\0",
    "\ud800",
    "\u202e",
    "\u0660",
    "\u0663",
    "\u2212",
    "(",
    ")",
    "[",
    "]",
    ",",
    "!",
    "**",
    "__import__('os')",
    "\\left",
    "\\text{",
    "\\infty",
    "\\int_0^\\infty",
    "x",
    "sin",
    "factorial(",
    "lambda:",
    "nan",
    "inf",
    "1e999",
    "\\begin{pmatrix}",
    "&",
    "\\\\",
    "a" * 200,
]
COUNT = 20_000


def hostile(count: int) -> list[str]:
    draw = random.Random(0)
    strings = ["".join(draw.choices(PIECES, k=draw.randint(0, 40))) for _ in range(count - 4)]
    return [*strings, "{" * 100_000, "\\boxed{" * 20_000, "1," * 50_000, "\\boxed{" + "9" * 900 + "}"]


@pytest.mark.slow
@pytest.mark.parametrize("match", ["math", "exact", "numeric", "choice"])
def test_hostile_answers(match: str, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"question": "q", "answer": "B" if match == "choice" else "271828"}) + "\n")
    task = JsonlTask(path=str(data), match=match)  # type: ignore[arg-type]
    (prompt,) = task.train_prompts()
    strings = hostile(COUNT if match == "math" else COUNT // 10)
    started = time.monotonic()
    rewards = [task.verify(prompt, text).reward for text in strings]
    assert rewards == [0.0] * len(strings)
    assert time.monotonic() - started < 240
    assert task.verify(prompt, f"\\boxed{{{'B' if match == 'choice' else '271828'}}}").reward == 1.0


def test_reading_hostile_text_is_fast() -> None:
    started = time.monotonic()
    for text in hostile(2000):
        for where in ("boxed", "number", "boxed_or_number", "tags", "marker"):
            spelled(extracted(text, where, "Answer:") or "")  # type: ignore[arg-type]
        canonical(text)
    assert time.monotonic() - started < 30
