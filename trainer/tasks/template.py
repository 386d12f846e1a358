"""How a task's question becomes a prompt: line breaks of a command line, and who speaks.

It must not know a tokenizer.
"""

from __future__ import annotations

import re
from typing import Literal

PromptFormat = Literal["auto", "chat", "raw"]

CHAT: dict[str, bool | None] = {"auto": None, "chat": True, "raw": False}
"""What :attr:`trainer.batch.types.Prompt.chat` is for each format."""

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
