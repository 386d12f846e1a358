"""pass@k and avg@n against closed forms and counting by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from trainer.metrics.passk import avg_at_n, pass_at_k


def test_oracle_of_two_right_in_eight() -> None:
    # 1 - C(6,4)/C(8,4) = 1 - 15/70 = 0.785714...; k = 8 > n - c, so some draw must be right.
    assert [float(pass_at_k(2, 8, k)) for k in (1, 4, 8)] == pytest.approx([0.25, 0.785714, 1.0], abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 16, 64])
def test_equals_the_closed_form_for_every_count(n: int) -> None:
    counts = np.arange(n + 1)
    for k in range(1, n + 1):
        expected = [1 - comb(n - c, k) / comb(n, k) for c in range(n + 1)]
        np.testing.assert_allclose(pass_at_k(counts, n, k), expected, atol=1e-14)


def test_large_samples_do_not_overflow() -> None:
    # 1 right in 100 000: a draw of k misses it with probability 1 - k/n exactly.
    assert float(pass_at_k(1, 100_000, 256)) == pytest.approx(256 / 100_000, rel=1e-9)


def test_pass_at_n_is_any_correct_pass_at_1_is_the_average_and_k_is_monotone() -> None:
    counts = np.array([0, 1, 5, 16])
    assert pass_at_k(counts, 16, 16).tolist() == [0.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(pass_at_k(counts, 16, 1), avg_at_n(counts, 16), atol=1e-15)
    curve = np.stack([pass_at_k(counts, 16, k) for k in range(1, 17)])
    assert np.all(np.diff(curve, axis=0) >= -1e-15)


def test_samples_may_differ_between_problems() -> None:
    # c = 1: pass@2 = 2/n.
    np.testing.assert_allclose(pass_at_k([1, 1], [4, 8], 2), [0.5, 0.25])


@pytest.mark.parametrize(("c", "n", "k"), [(1, 4, 5), (1, 4, 0), (5, 4, 1), (-1, 4, 1)])
def test_impossible_counts_are_refused(c: int, n: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(c, n, k)
