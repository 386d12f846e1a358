"""Overlap of evaluation prompts with training prompts, by runs of words.

Source: Brown et al. 2020 (arXiv 2005.14165), appendix C: a problem is contaminated when 13 words in a row of it, in
lower case and without punctuation, are in the training data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

WORDS = 13

Words = tuple[str, ...]


def contaminated(trained: Sequence[str], asked: Sequence[str], words: int = WORDS) -> list[bool]:
    """Of each text in ``asked``, whether ``words`` of its words in a row are in a text of ``trained``.

    What all texts of one side begin and end with, the template, does not count. A text of fewer words has to be in
    ``trained`` as a whole.
    """
    seen = {run for text in _without_template(trained) for run in _runs(text, words)}
    whole = {_words(text) for text in trained}
    return [
        text in whole if len(text) < words else any(run in seen for run in _runs(bare, words))
        for text, bare in zip(map(_words, asked), _without_template(asked), strict=True)
    ]


def _words(text: str) -> Words:
    return tuple(re.findall(r"\w+", text.lower()))


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
