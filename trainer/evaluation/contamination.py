"""Overlap of evaluation prompts with training prompts, by runs of words and by exact repetition.

Source: Brown et al. 2020 (arXiv 2005.14165), appendix C: a problem is contaminated when N of its words in a row, in
lower case and without punctuation, are in the training data; N is the 5th percentile of the problems' lengths, at least
8 and at most 13.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_WORDS, MOST_WORDS = 8, 13
SHOWN = 300
"""Characters of an example."""

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What of a suite is trained on."""

    suite: str
    prompts: int
    overlapping: int
    words: int
    """Words in a row that count as an overlap; a shorter prompt counts only as a whole."""
    example: str | None
    """Beginning of the first overlapping prompt."""

    @property
    def share(self) -> float:
        """Overlapping prompts over all."""
        return self.overlapping / self.prompts


def overlaps(trained: Sequence[str], suites: Mapping[str, Sequence[str]]) -> list[Overlap]:
    """The overlap of every suite that has prompts, by name, with the training prompts ``trained``."""
    rows = []
    for suite, evaluated in suites.items():
        if not evaluated:
            continue
        flags = contaminated(trained, evaluated)
        example = next((text[:SHOWN] for text, overlap in zip(evaluated, flags, strict=True) if overlap), None)
        words = words_in_a_row(evaluated)
        rows.append(Overlap(suite=suite, prompts=len(evaluated), overlapping=sum(flags), words=words, example=example))
    return rows


def contaminated(trained: Sequence[str], evaluated: Sequence[str], words: int | None = None) -> list[bool]:
    """Of each text in ``asked``, whether it is in ``trained``, or ``words`` of its words in a row are.

    A text is in ``trained`` when one there has the same characters, but for case and spaces; so punctuation, which may
    be all that tells ``3 - 4`` from ``3 + 4``, counts in texts that are shorter than ``words``. What all texts of one
    side begin and end with, the template, is no run of words. None: :func:`words_in_a_row`.
    """
    size = words_in_a_row(evaluated) if words is None else words
    runs = [set(_runs(bare, size)) for bare in _without_template(evaluated)]
    looked_for = set().union(*runs)
    trained_runs = {run for text in _without_template(trained) for run in _runs(text, size) if run in looked_for}
    trained_texts = {_characters(text) for text in trained}
    return [
        _characters(text) in trained_texts or not evaluated_runs.isdisjoint(trained_runs)
        for text, evaluated_runs in zip(evaluated, runs, strict=True)
    ]


def words_in_a_row(evaluated: Sequence[str]) -> int:
    """N of the paper: the 5th percentile of the lengths of the texts without their template, from 8 to 13 words."""
    lengths = [len(text) for text in _without_template(evaluated)]
    return min(MOST_WORDS, max(FEWEST_WORDS, int(np.percentile(lengths, 5)))) if lengths else MOST_WORDS


def _characters(text: str) -> str:
    return " ".join(text.lower().split())


def _words(text: str) -> Words:
    return tuple(map(sys.intern, re.findall(r"\w+", text.lower())))


def _without_template(texts: Iterable[str]) -> list[Words]:
    split = [_words(text) for text in texts]
    if len(set(split)) < 2:
        return split
    start = _shared(split)
    left = [text[start:] for text in split]
    end = _shared([text[::-1] for text in left])
    return [text[: len(text) - end] for text in left]


def _shared(texts: Sequence[Words]) -> int:
    """Words that all texts begin with."""
    differing = (place for place, words in enumerate(zip(*texts, strict=False)) if len(set(words)) > 1)
    return next(differing, min(map(len, texts)))


def _runs(text: Words, words: int) -> Iterable[Words]:
    return (text[start : start + words] for start in range(len(text) - words + 1))
