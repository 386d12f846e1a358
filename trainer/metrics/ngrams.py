"""Exact n-gram tables of many responses at once, for ``diversity.py``.

Ids come from sorting, never from hashing, so two different n-grams cannot collide. It must not know about rewards,
answers or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """Responses laid end to end. M tokens in all, N responses, P groups (prompts).

    Example: completions ``[(7, 8), (9,)]`` of groups ``[3, 3]`` give tokens ``[7, 8, 9]``, row ``[0, 0, 1]``,
    lengths ``[2, 1]``, group ``[0, 0]``.
    """

    tokens: Ints
    """[M] token ids."""
    row: Ints
    """[M] response of each token, 0..N-1, ascending."""
    lengths: Ints
    """[N] tokens of each response; may be 0."""
    group: Ints
    """[N] group of each response, renumbered 0..P-1."""

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.lengths)

    @property
    def num_groups(self) -> int:
        """P."""
        return int(self.group.max()) + 1 if len(self.group) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GramTable:
    """Which n-gram occurs how often in which response; K entries sorted by (gram, row). Grams of two groups differ."""

    row: Ints
    """[K] response."""
    count: Ints
    """[K] occurrences of the gram in the response, at least 1."""
    start: Ints
    """[U] first entry of each distinct (group, gram)."""

    def per_entry(self, values: Ints) -> Ints:
        """Spread one value per distinct gram [U] over its entries [K]."""
        return np.repeat(values, np.diff(self.start, append=len(self.row)))


def flatten_responses(completions: Sequence[Sequence[int]], groups: Sequence[int]) -> Responses:
    """Responses [N] of token ids and the group of each [N] -> :class:`Responses`. Unequal lengths raise ValueError."""
    if len(completions) != len(groups):
        raise ValueError(f"{len(completions)} responses came with {len(groups)} groups; give one group per response")
    lengths = np.fromiter(map(len, completions), dtype=np.int64, count=len(completions))
    tokens = np.fromiter(chain.from_iterable(completions), dtype=np.int64, count=int(lengths.sum()))
    _, group = np.unique(np.asarray(groups, dtype=np.int64), return_inverse=True)
    row = np.repeat(np.arange(len(lengths)), lengths)
    return Responses(tokens=tokens, row=row, lengths=lengths, group=group.astype(np.int64))


def gram_tables(responses: Responses, order: int) -> list[GramTable]:
    """Tables for n = 1..order. Time O(order * M log M), memory O(M).

    The id of an n-gram is the rank of (id of its first n-1 tokens, last token), so ids stay below M at every order.
    """
    ids = _ranks(responses.group[responses.row], responses.tokens)
    position = np.arange(len(responses.tokens))
    last = (np.cumsum(responses.lengths) - 1)[responses.row] if len(position) else position
    tables = []
    grams, starts = ids, position
    for size in range(1, order + 1):
        if size > 1:
            fits = starts + size - 1 <= last[starts]
            grams, starts = grams[fits], starts[fits]
            grams = _ranks(grams, ids[starts + size - 1])
        tables.append(_table(grams, responses.row[starts], responses.num_rows))
    return tables


def _ranks(first: Ints, second: Ints) -> Ints:
    """Dense rank of each pair (first, second), 0-based."""
    if not len(first):
        return first
    low, high = int(second.min()), int(second.max())
    key = first * (high - low + 1) + (second - low)
    ranks: Ints = np.unique(key, return_inverse=True)[1]
    return ranks


def _table(grams: Ints, rows: Ints, num_rows: int) -> GramTable:
    """Count equal (gram, row) pairs."""
    key, count = np.unique(grams * num_rows + rows, return_counts=True)
    gram, row = np.divmod(key, max(num_rows, 1))
    start = np.flatnonzero(np.diff(gram, prepend=-1))
    return GramTable(row=row, count=count.astype(np.int64), start=start)
