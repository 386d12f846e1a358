"""Covariance, shares, quantiles and draws over a mini-batch, by hand and against torch."""

from __future__ import annotations

import pytest
import torch

from trainer.objective.selection import largest, masked_covariance, num_selected, quantile, random_subset


def column(values: list[list[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_covariance_of_four_tokens() -> None:
    # Means -1.3 and 0: (1.2)(1), (1.2)(1), (-0.7)(-1), (-1.7)(-1), mean 1.2 (specification 3).
    value = masked_covariance(column([[-0.1, -0.1], [-2.0, -3.0]]), column([[1, 1], [-1, -1]]), torch.ones(2, 2).bool())
    assert value.flatten().tolist() == pytest.approx([1.2, 1.2, 0.7, 1.7], abs=1e-12)


def test_covariance_sees_the_mask_only() -> None:
    nan = float("nan")
    mask = torch.tensor([[True, False, True]])
    assert masked_covariance(column([[-1, nan, -3]]), column([[1, nan, -1]]), mask).tolist() == [[1.0, 0.0, 1.0]]
    assert masked_covariance(column([[nan]]), column([[nan]]), torch.tensor([[False]])).tolist() == [[0.0]]
    assert masked_covariance(column([[-5]]), column([[2]]), torch.tensor([[True]])).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("fraction", "total", "count"),
    [(2e-4, 13_000, 2), (2e-4, 100, 1), (0.3, 10, 3), (0.29, 10, 2), (1.0, 7, 7), (0.0, 7, 0), (0.5, 0, 0)],
)
def test_share_is_rounded_down_and_at_least_one(fraction: float, total: int, count: int) -> None:
    assert num_selected(fraction, total) == count


def test_largest_among_masked_tokens_and_earlier_rows_first() -> None:
    values = column([[3, 9, 1], [3, 3, 2]])
    mask = torch.tensor([[True, False, True], [True, True, True]])
    assert largest(values, mask, 2).tolist() == [[True, False, False], [True, False, False]]
    assert not largest(values, mask, 0).any()
    assert torch.equal(largest(values, mask, 99), mask)


def test_draws_are_uniform_without_replacement_and_from_the_eligible() -> None:
    eligible = torch.tensor([[True, False, True], [True, True, False]])
    counts, repeats = torch.zeros(2, 3), 2000
    generator = torch.Generator().manual_seed(0)
    for _ in range(repeats):
        chosen = random_subset(eligible, 2, generator)
        assert int(chosen.sum()) == 2
        counts += chosen
    assert not counts[~eligible].any()
    # Each of four tokens is drawn with chance 1/2: 1000 times, standard deviation 22.
    assert (counts[eligible] - repeats / 2).abs().max() < 5 * 22.4
    assert torch.equal(random_subset(eligible, 9, generator), eligible)
    assert not random_subset(torch.zeros(2, 2).bool(), 3, generator).any()


@pytest.mark.parametrize("size", [1, 2, 5, 10, 33])
@pytest.mark.parametrize("q", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_quantile_is_that_of_torch(size: int, q: float) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    assert float(quantile(values, q)) == pytest.approx(float(torch.quantile(values, q)), abs=1e-12)
