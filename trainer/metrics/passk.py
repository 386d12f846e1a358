"""Accuracy of repeated sampling: unbiased pass@k and avg@k; maj@k is in majority.py.

Pure numpy; it must not know how an answer was judged. Definitions: specification 15.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pass_at_k(num_correct: ArrayLike, num_samples: ArrayLike, k: int) -> NDArray[np.float64]:
    """Unbiased probability that at least one of k draws is correct: 1 - C(n-c, k) / C(n, k), per problem [P].

    Evaluated as 1 - prod_{j=0}^{k-1} (n - c - j) / (n - j): no binomial, so nothing overflows, and a factor is
    0 when n - c < k. ``num_correct`` c [P] and ``num_samples`` n [P] or a scalar. The score of a suite is the mean over
    problems. Raises ValueError for k outside 1..n or c outside 0..n. Source: arXiv 2107.03374.
    """
    correct, samples = np.broadcast_arrays(np.asarray(num_correct, np.float64), np.asarray(num_samples, np.float64))
    if k < 1 or np.any(samples < k):
        raise ValueError(f"pass@{k} cannot be estimated from {int(samples.min())} samples; take 1 <= k <= samples")
    if np.any(correct < 0) or np.any(correct > samples):
        raise ValueError(
            "pass@k got a problem with fewer than 0 or more correct answers than samples; check the counts"
        )
    draws = np.arange(k, dtype=np.float64)
    factors = (samples[..., None] - correct[..., None] - draws) / (samples[..., None] - draws)
    chance: NDArray[np.float64] = 1.0 - np.prod(factors, axis=-1)
    return chance


def avg_at_n(num_correct: ArrayLike, num_samples: ArrayLike) -> NDArray[np.float64]:
    """Mean accuracy c / n of each problem [P]; equals pass@1."""
    return np.asarray(num_correct, np.float64) / np.asarray(num_samples, np.float64)
