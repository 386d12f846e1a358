"""The optimal token baseline, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from handmade import handmade
from testbench import Bench, Toy, on_policy, plain

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.objective.advantages.optimal_token import COLUMN, OptimalToken, token_advantages


def case() -> tuple[TokenTerms, TokenBatch]:
    """Two responses, the second of one token. Weights 1 - 2 p + sum p^2: 0.5, then 0.5 + 0.32; 0.18."""
    row = [[math.log(0.5), math.log(0.6)], [math.log(0.7), 0.0]]
    terms, batch = handmade(row, [[1.0, 1.0], [-1.0, 0.0]], mask=[[True, True], [True, False]])
    squares = torch.tensor([[0.5, 0.52], [0.58, math.nan]], dtype=torch.float64)
    batch = replace(batch, rewards=torch.tensor([1.0, 0.0]), group=torch.tensor([4, 4]))
    return TokenTerms(logprobs=terms.logprobs.detach(), entropy=terms.entropy, extras={"sum_p2": squares}), batch


def test_by_hand() -> None:
    # Position 1: baseline 0.5 / (0.5 + 0.18) = 0.735294. Position 2: only the first is there, and is its own baseline.
    found = token_advantages(*case())
    assert found[0].tolist() == pytest.approx([1 - 0.735294, 0.0], abs=1e-6)
    assert found[1].tolist() == pytest.approx([-0.735294, 0.0], abs=1e-6)


def test_the_weighted_advantages_of_a_position_add_up_to_nothing() -> None:
    found = token_advantages(*case())
    assert 0.5 * float(found[0, 0]) + 0.18 * float(found[1, 0]) == pytest.approx(0.0, abs=1e-12)


def test_certain_tokens_have_the_plain_mean() -> None:
    batch = case()[1]
    sure = TokenTerms(logprobs=torch.zeros(2, 2), entropy=torch.zeros(2, 2), extras={"sum_p2": torch.ones(2, 2)})
    assert token_advantages(sure, batch).tolist() == [[0.5, 0.0], [-0.5, 0.0]]


def test_groups_do_not_mix_and_a_step_uses_the_column() -> None:
    batch = on_policy(Toy())
    outcome = Bench(Toy()).step(plain(advantage=OptimalToken()), batch)
    column = outcome.batch.extras[COLUMN]
    for number in batch.group.unique():
        rows = (batch.group == number).nonzero().squeeze(1)
        alone = Bench(Toy()).step(plain(advantage=OptimalToken()), batch.rows(rows)).batch.extras[COLUMN]
        torch.testing.assert_close(column[rows][:, : alone.shape[1]], alone, rtol=0, atol=1e-12)
    equal = replace(batch, rewards=torch.full_like(batch.rewards, 0.3))
    assert Bench(Toy()).step(plain(advantage=OptimalToken()), equal).size == 0.0
