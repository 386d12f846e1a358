"""Simulated authors of the pretraining traces: few of them skilled, each with filler words of its own.

A language model is pretrained on text of many authors, so its policy is a mixture of them: the first tokens of a
response decide which author's style it continues, and reinforcement learning moves probability to authors whose answers
tend to be correct, some of them rare at first. Much of the entropy is wording that does not change the reward. The
traces of the tiny model have both properties. Used by :mod:`trainer.pretrain.data`; no run reads it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.tasks.countdown_problems import Taste, falling
from trainer.tasks.countdown_steps import Step

WORDS = (
    *("so", "then", "now", "we", "take", "get", "next", "and", "with", "from", "make", "try", "just", "use", "here"),
    *("first", "well", "let", "me", "see", "again", "or", "maybe", "okay", "still", "also", "thus", "right", "hence"),
    *("combine", "good", "put"),
)
"""Each is one token, with the blank that follows it; the verifier passes over them."""
MOST_WORDS = 4
"""Words before one step."""
_WORD_EXPONENT = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Habits of one hand."""

    share: float
    """Weight of this writer's traces among all."""
    skill: float
    """Chance that a trace reaches the target; the others go where ``taste`` leads."""
    chatter: float
    """Chance that one more word precedes a step. The first step always has one."""
    taste: Taste
    """Operators and values that a trace without the target in view prefers."""
    shift: int
    """Distinguishes the words this writer prefers from those of the others."""

    def write(self, steps: Sequence[Step], rng: random.Random) -> str:
        """The response: steps joined by commas, words before each."""
        return ",".join(self._words(index == 0, rng) + step.text for index, step in enumerate(steps))

    def _words(self, opening: bool, rng: random.Random) -> str:
        """Words with a blank after each. How a word is ranked depends on the writer and on the word before it."""
        text, before = "", self.shift
        for index in range(MOST_WORDS):
            if rng.random() >= self.chatter and not (opening and index == 0):
                break
            rank = rng.choices(range(len(WORDS)), falling(len(WORDS), _WORD_EXPONENT))[0]
            # 7 is coprime to the 32 words, so this ranks all of them.
            before = (before + self.shift + 7 * rank) % len(WORDS)
            text += f"{WORDS[before]} "
        return text


def writers(count: int, skilled_every: int, skew: float) -> tuple[Writer, ...]:
    """``count`` writers with shares by Zipf's law, the most frequent first; every ``skilled_every``-th is skilled."""
    return tuple(
        Writer(
            share=share,
            skill=0.95 if index % skilled_every == skilled_every - 1 else 0.05,
            chatter=(0.3, 0.5, 0.7)[index % 3],
            taste=Taste(operators="+-*/"[index % 4 :] + "+-*/"[: index % 4], skew=skew),
            shift=5 * index + 1,
        )
        for index, share in enumerate(falling(count, 1.0))
    )
