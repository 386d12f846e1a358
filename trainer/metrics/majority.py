"""Accuracy of the majority vote among some of a problem's samples: maj@k.

Pure numpy and plain Python; it must not know how an answer was judged. Definitions: specification 15.2.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EXACT_WORK = 2_000_000
"""Multiplications that counting may take for a problem; what takes more is drawn."""

DRAWS = 2048
"""Subsets that are drawn where counting takes too long."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Complex = NDArray[np.complex128]

Votes = tuple[tuple[int, int], ...]
"""Of each different answer to a problem, how often it was given and how often that was correct."""


def majority_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """maj@k of one problem: the expected accuracy of the most frequent answer of k of its n samples, in [0, 1].

        maj@k = mean over the C(n, k) subsets of k samples of mean_{a most frequent there} accuracy(a)

    None (no answer could be read) has no vote; a subset without any vote scores 0. **Tie rule:** expected accuracy when
    one of the tied answers is drawn at random. An answer's accuracy is that of the samples which gave it, so a verifier
    that also judges the working may give one answer a fraction. maj@n is the vote of all samples, maj@1 the share of
    correct answers. Exact by counting, unless that takes more than :data:`EXACT_WORK`: then the mean over
    :data:`DRAWS` subsets from a generator seeded with the counts, whose standard error is at most 1 / (2 sqrt(DRAWS)),
    0.011 for one problem, and part of the standard error over problems. Raises ValueError for k outside 1..n, and for
    answers and judgements that do not pair up.
    """
    if len(answers) != len(correct):
        raise ValueError(f"maj@k got {len(answers)} answers and {len(correct)} judgements; give one of each per sample")
    if not 1 <= k <= len(answers):
        raise ValueError(f"maj@{k} cannot be had of {len(answers)} samples; take 1 <= k <= samples")
    counts = Counter(answer for answer in answers if answer is not None)
    correct_counts = Counter(
        answer for answer, judged in zip(answers, correct, strict=True) if answer is not None and judged
    )
    return _score(tuple(sorted((count, correct_counts[answer]) for answer, count in counts.items())), len(answers), k)


@functools.lru_cache(maxsize=8192)
def _score(votes: Votes, n: int, k: int) -> float:
    """maj@k of ``votes`` among ``n`` samples; many problems of a suite have the same."""
    if not any(num_correct for _, num_correct in votes):
        return 0.0
    if k == 1:
        return sum(num_correct for _, num_correct in votes) / n
    most = max(count for count, _ in votes)
    if k == n:
        tied = [num_correct / count for count, num_correct in votes if count == most]
        return sum(tied) / len(tied)
    work = len({count for count, _ in votes}) * min(most, k) * min(len(votes), k) * n // 4
    return _exact(votes, n, k) if work <= EXACT_WORK else _monte_carlo(votes, n, k)[0]


def _exact(votes: Votes, n: int, k: int) -> float:
    """Sum over how often the winner is in a subset (m), and over the others, by their generating function in x.

    How often each answer is in the subset follows from independent Binomial(count, k / n) numbers, given that they add
    up to k, which keeps every term in [0, 1]. An answer that is given m times shares the win with t others with chance
    1 / (t + 1) = integral of y^t over y from 0 to 1, for which Gauss-Legendre nodes are exact; y counts those t. The
    coefficient of x^(k - m) is a sum over roots of unity, of which half are conjugates of the others.
    """
    times = Counter(count for count, _ in votes)
    roots, num_nodes = (n + 1) // 2 * 2 + 1, min(len(votes), k) // 2 + 1
    powers = np.exp(2j * np.pi / roots * np.outer(np.arange(k + 1), np.arange(roots // 2 + 1)))
    weight = np.where(np.arange(roots // 2 + 1) == 0, 1, 2) / roots
    ties, shares = _nodes(num_nodes)
    levels = np.arange(1, min(max(times), k) + 1)
    silent = np.array(_binomial(n - sum(count for count, _ in votes), k, k / n))
    unread = silent @ powers[: len(silent)]
    factors = {count: _factor(count, k, k / n, powers, ties, levels) for count in times}
    score = 0.0
    for count in sorted({count for count, num_correct in votes if num_correct}):
        accuracy = sum(num_correct / count for size, num_correct in votes if size == count)
        others = unread * np.prod([factors[c] ** (times[c] - (c == count)) for c in times], axis=0)
        hits = np.zeros(len(levels))
        probabilities = _binomial(count, k, k / n)[1 : len(levels) + 1]
        hits[: len(probabilities)] = probabilities
        others_below = (others * (weight * powers[k - levels].conj())[:, None]).sum(axis=-1).real
        score += accuracy * float(hits @ others_below @ shares)
    return score / _binomial(n, k, k / n)[k]


@functools.lru_cache(maxsize=512)
def _nodes(number: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on [0, 1], exact for polynomials below degree ``2 * number``."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return (nodes + 1) / 2, weights / 2


def _factor(count: int, k: int, share: float, powers: Complex, ties: Floats, levels: Ints) -> Complex:
    """Generating function of one answer that is given less than m times, or m times and counted by y: [m, y, x]."""
    chances = np.zeros(k + 1)
    chances[: count + 1] = _binomial(count, k, share)
    terms = chances[:, None] * powers
    below: Complex = terms.cumsum(axis=0)[levels - 1][:, None]
    return below + ties[None, :, None] * terms[levels][:, None]


@functools.lru_cache(maxsize=8192)
def _binomial(count: int, largest: int, share: float) -> tuple[float, ...]:
    """P(i of ``count``) for i up to the smaller of ``count`` and ``largest``; ``share`` is the chance, below 1."""
    hit, miss, whole = math.log(share), math.log1p(-share), math.lgamma(count + 1)
    logs = (  # because C(1100, 550) is no float
        whole - math.lgamma(i + 1) - math.lgamma(count - i + 1) + i * hit + (count - i) * miss
        for i in range(min(count, largest) + 1)
    )
    return tuple(map(math.exp, logs))


def _monte_carlo(votes: Votes, n: int, k: int) -> tuple[float, float]:
    """Mean over :data:`DRAWS` random subsets, and its standard error."""
    counts = [count for count, _ in votes]
    accuracy = np.array([num_correct / count for count, num_correct in votes])
    generator = np.random.default_rng([n, k, *counts])
    drawn = generator.multivariate_hypergeometric([*counts, n - sum(counts)], k, size=DRAWS, method="marginals")[:, :-1]
    most = drawn.max(axis=1, keepdims=True)
    tied = (drawn == most) & (most > 0)
    scores: Floats = (tied * accuracy).sum(axis=1) / np.maximum(tied.sum(axis=1), 1)
    return float(scores.mean()), float(scores.std(ddof=1) / math.sqrt(DRAWS))
