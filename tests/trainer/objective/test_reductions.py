"""Denominators: the oracle of specification 0.4, and rows that have no token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import PAD, make_rollouts

from trainer.batch.collate import collate
from trainer.batch.types import TokenBatch
from trainer.contract.settings import ConfigError
from trainer.objective.base import Reduction
from trainer.objective.reductions import Constant, SequenceMean, SequenceSum, TokenMean

ALL = [TokenMean(), SequenceMean(), SequenceSum(), Constant(length=4.0)]


def with_mask(rows: list[list[int]]) -> TokenBatch:
    template = collate(make_rollouts(groups=1, group_size=len(rows)), pad_id=PAD)
    return replace(template, mask=torch.tensor(rows, dtype=torch.bool))


def reduced(reduction: Reduction, rows: list[list[int]], losses: list[list[float]]) -> float:
    batch = with_mask(rows)
    return float((reduction.scale(batch) * batch.mask * torch.tensor(losses)).sum())


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [(TokenMean(), 1 / 4), (SequenceMean(), 1 / 2), (SequenceSum(), 1 / 2), (Constant(length=4.0), 1 / 8)],
)
def test_lengths_one_and_three_with_loss_on_the_short_row(reduction: Reduction, expected: float) -> None:
    # token mean 1 / 4; mean of (1/1, 0/3) = 1/2; mean of (1, 0) = 1/2; that over 4 = 1/8.
    assert reduced(reduction, [[1, 0, 0], [1, 1, 1]], [[1, 1, 1], [0, 0, 0]]) == pytest.approx(expected, abs=1e-7)


def test_loss_on_the_long_row_tells_the_modes_apart() -> None:
    losses = [[0, 0, 0], [1, 1, 1]]
    got = [reduced(reduction, [[1, 0, 0], [1, 1, 1]], losses) for reduction in ALL]
    assert got == pytest.approx([3 / 4, 1 / 2, 3 / 2, 3 / 8], abs=1e-7)


def test_equal_lengths_make_token_mean_and_sequence_mean_one() -> None:
    rows, losses = [[1, 1, 0], [0, 1, 1]], [[3.0, 1.0, 9.0], [9.0, 2.0, 4.0]]
    assert reduced(TokenMean(), rows, losses) == pytest.approx(reduced(SequenceMean(), rows, losses), abs=1e-7) == 2.5


@pytest.mark.parametrize("reduction", ALL, ids=lambda reduction: type(reduction).__name__)
def test_a_row_without_tokens_counts_for_nothing(reduction: Reduction) -> None:
    two = reduced(reduction, [[1, 0, 0], [1, 1, 1]], [[2, 1, 1], [5, 4, 3]])
    three = reduced(reduction, [[1, 0, 0], [0, 0, 0], [1, 1, 1]], [[2, 1, 1], [7, 7, 7], [5, 4, 3]])
    assert three == pytest.approx(two, rel=1e-6)


@pytest.mark.parametrize("reduction", ALL, ids=lambda reduction: type(reduction).__name__)
def test_no_token_at_all_gives_zero_and_not_nan(reduction: Reduction) -> None:
    assert torch.isfinite(reduction.scale(with_mask([[0, 0], [0, 0]]))).all()
    assert reduced(reduction, [[0, 0], [0, 0]], [[1, 1], [1, 1]]) == 0.0


def test_the_constant_has_to_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"reduction\.length=0.*positive"):
        Constant(length=0)


def test_rows_without_advantage_are_dropped_from_both_sums() -> None:
    batch = collate(make_rollouts(groups=1, group_size=4, given=0), pad_id=PAD)
    mask = torch.arange(5)[None] < torch.tensor([[2], [3], [0], [5]])
    advantages = torch.tensor([[1.0], [0.0], [7.0], [-1.0]]).expand(4, 5)
    got = TokenMean(rows="signal").scale(replace(batch, mask=mask, advantages=advantages))
    # Rows 0 and 3 are left (row 2 has an advantage but no token): 2 + 5 tokens.
    assert got.squeeze(1).tolist() == pytest.approx([1 / 7, 0, 0, 1 / 7])
    silent = TokenMean(rows="signal").scale(replace(batch, mask=mask, advantages=torch.zeros(4, 5)))
    assert silent.squeeze(1).tolist() == [0.0] * 4
