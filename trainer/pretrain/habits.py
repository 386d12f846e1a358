"""What a pretrained writer is like: it prefers some steps to others, and puts words between them that change nothing.

Entropy of a language model is of two kinds: forks that decide the answer, with a favourite and a tail, and wording that
does not. The traces of pretraining have both, so that reinforcement learning finds both. Read by
:mod:`trainer.pretrain.data`; no run reads it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.tasks.countdown_problems import falling
from trainer.tasks.countdown_steps import Step

WORDS = (
    *("so", "then", "now", "we", "take", "get", "next", "and", "with", "from", "make", "try", "just", "use", "here"),
    *("first", "well", "let", "me", "see", "again", "or", "maybe", "okay", "still", "also", "thus", "right", "hence"),
    *("combine", "good", "put"),
)
"""Each is one token, with the blank that follows it; the verifier passes over them."""
MOST_WORDS = 4
"""Words before one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How the writer of the traces chooses."""

    chatter: float
    """Chance that one more word precedes a step; 0 writes bare steps."""
    skew: float
    """Exponent of the preference for some operators and values, see ``random_walk``; 0 has none."""
    exponent: float = 1.2
    """Of the preference for some words."""

    def write(self, steps: Sequence[Step], rng: random.Random) -> str:
        """The response: steps joined by commas, words before each."""
        return ",".join(self.words(rng) + step.text for step in steps)

    def words(self, rng: random.Random) -> str:
        """Up to ``MOST_WORDS`` words with a blank after each. The ranking of a word depends on the word before it."""
        text, before = "", 0
        for _ in range(MOST_WORDS):
            if rng.random() >= self.chatter:
                break
            rank = rng.choices(range(len(WORDS)), falling(len(WORDS), self.exponent))[0]
            # 7 is coprime to 32, so every word has its own ranking of all words.
            before = (7 * before + rank) % len(WORDS)
            text += f"{WORDS[before]} "
        return text
