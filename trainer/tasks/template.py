"""How a task's question becomes a prompt: line breaks given on a command line, and the roles of a chat.

It must not know a tokenizer.
"""

from __future__ import annotations

import re
from typing import Literal

PromptFormat = Literal["auto", "chat", "raw"]

CHAT: dict[str, bool | None] = {"auto": None, "chat": True, "raw": False}
"""What :attr:`trainer.batch.types.Prompt.chat` is for each format."""

_TAGS = "Reason between <think> and </think>, then give the final answer alone between <answer> and </answer>."
_MARKER = "Reason step by step and end with one line: {marker} and the final answer."
_BOXED = "Reason step by step and put the final answer within \\boxed{}."

_LATEX = (
    "abla|atural|cong|e|earrow|eg|eq|ewline|exists|geq|i|leq|mid|olimits|onumber|ormal|ot|otin|parallel|prec|sim"
    "|subseteq|succ|u|warrow"
)
_BREAK = re.compile(rf"(?<!\\)\\n(?!(?:{_LATEX})(?![A-Za-z]))")


def with_line_breaks(text: str) -> str:
    r"""``text`` with line breaks for ``\n`` in two characters, which is what a shell hands on.

    LaTeX commands that start so (``\neq``, ``\nabla``) and ``\\n`` stay as they are.
    """
    return _BREAK.sub("\n", text)


def asking(extract: str, marker: str, template: str | None) -> str:
    """``template`` with its line breaks; without one, the question and an instruction to put the answer where
    ``extract`` looks for it."""
    if template is not None:
        return with_line_breaks(template)
    instruction = {"tags": _TAGS, "marker": _MARKER.replace("{marker}", marker)}.get(extract, _BOXED)
    return f"{{question}}\n{instruction}\n"


def answering(answer: str, extract: str, marker: str) -> str:
    """An answer as the shortest response gives it."""
    spellings = {"tags": f"<answer>{answer}</answer>", "marker": f"{marker} {answer}", "number": answer}
    return spellings.get(extract, f"\\boxed{{{answer}}}")
