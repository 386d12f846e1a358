"""Format reward: the response is ``<think>...</think>`` and then ``<answer>...</answer>``, each once.

Source: the format reward of DeepSeek-R1-Zero (arXiv 2501.12948, section 2.2.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SHAPE = re.compile(r"\s*<think>(?:(?!</?think>|</?answer>)[\s\S])*</think>\s*<answer>[^<>]*</answer>\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """1 for a response of that shape and nothing else, 0 otherwise."""

    weight: float = 0.1

    def score(self, response: str, data: Mapping[str, object]) -> float:
        """See the class."""
        return float(_SHAPE.fullmatch(response) is not None)
