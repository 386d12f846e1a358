"""RepExp: leverages and projection by hand, and whom the bonus reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from testbench import CONTEXT, Bench, Toy, off_policy, on_policy, plain, policy, rewarded, widened
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.objective.base import Context
from trainer.objective.shaping.rep_exp import RepExp, leverages, projection


@dataclass(frozen=True)
class Told:
    """Services that know the hidden states of the rows and nothing else."""

    hidden: list[list[float]]

    def states(self, batch: TokenBatch) -> Tensor:
        return torch.tensor(self.hidden)


def bonuses(shaping: RepExp, batch: TokenBatch, hidden: list[list[float]]) -> list[float]:
    services: Any = Told(hidden)
    shaped: Tensor = shaping(batch, replace(CONTEXT, services=services))
    return (shaped - batch.rewards).tolist()


def test_leverage_of_three_points_on_a_line() -> None:
    # Minus their mean 1: -1, -1, 2. H^T H = 6, and 1 / (6 + 2), 1 / (6 + 2), 4 / (6 + 2).
    states = torch.tensor([[0.0], [0.0], [3.0]], dtype=torch.float64)
    assert leverages(states, 2.0).tolist() == pytest.approx([0.125, 0.125, 0.5])


def test_leverage_in_the_plane() -> None:
    # Centred: (1, 0), (-1, 0), (0, 2), (0, -2); H^T H = diag(2, 8): 1 / (2 + 1) twice, 4 / (8 + 1) twice.
    states = torch.tensor([[2.0, 5.0], [0.0, 5.0], [1.0, 7.0], [1.0, 3.0]], dtype=torch.float64)
    assert leverages(states, 1.0).tolist() == pytest.approx([1 / 3, 1 / 3, 4 / 9, 4 / 9])


def test_equal_states_stand_nowhere_apart_and_leverages_stay_below_one() -> None:
    assert leverages(torch.ones(4, 3, dtype=torch.float64), 0.01).tolist() == [0.0] * 4
    spread = torch.randn(4, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100
    # More dimensions than responses: what is left below 1 - 1/G is of the order of the ridge.
    assert leverages(spread, 0.01).tolist() == pytest.approx([0.75] * 4, abs=1e-4)


def test_bonus_by_hand_in_groups_with_a_correct_response_alone() -> None:
    # One dimension in, one out: the projection is +1 or -1, which no leverage sees.
    hidden = [[0.0], [0.0], [3.0], [0.0], [0.0], [3.0]]
    batch = rewarded([0, 1, 0, 0, 0, 0], group=[0, 0, 0, 1, 1, 1])
    leverage = RepExp(coef=0.5, ridge=2.0, dimension=1)
    assert bonuses(leverage, batch, hidden) == pytest.approx([0.0625, 0.0625, 0.25, 0, 0, 0])
    # Without itself in H: 1 / (6 - 1 + 2), 1 / 7, 4 / (6 - 4 + 2).
    without = replace(leverage, kind="leave_one_out")
    assert bonuses(without, batch, hidden) == pytest.approx([0.5 / 7, 0.5 / 7, 0.5, 0, 0, 0])


def test_nobody_is_asked_for_states_without_a_bonus() -> None:
    batch = rewarded([1, 0])
    assert RepExp(coef=0.0)(batch, CONTEXT) is batch.rewards


def test_projection_is_sparse_signs_of_one_size_and_keeps_lengths_on_average() -> None:
    matrix = projection(256, 4096, torch.Generator().manual_seed(0))
    # s = 16: entries of +-sqrt(16 / 4096), one in sixteen of them.
    size = math.sqrt(16 / 4096)
    assert {abs(value) for value in matrix.unique().tolist()} == {0.0, size}
    assert float((matrix != 0).double().mean()) == pytest.approx(1 / 16, rel=0.02)
    assert float(matrix.mean()) == pytest.approx(0.0, abs=1e-4)
    vector = torch.arange(256, dtype=torch.float64)
    assert float((matrix @ vector).square().sum() / vector.square().sum()) == pytest.approx(1.0, rel=0.1)


def test_projection_is_a_function_of_seed_and_step() -> None:
    def drawn(context: Context) -> Tensor:
        return projection(36, 4, context.generator("rep_exp"))

    assert torch.equal(drawn(CONTEXT), drawn(replace(CONTEXT)))
    assert not torch.equal(drawn(CONTEXT), drawn(replace(CONTEXT, step=CONTEXT.step + 1)))
    assert not torch.equal(drawn(CONTEXT), drawn(replace(CONTEXT, seed=CONTEXT.seed + 1)))


def test_mean_states_are_those_that_the_tokens_were_sampled_from() -> None:
    model = Toy()
    batch = on_policy(model)
    row, here = 3, batch.mask[3]
    ids = batch.inputs[row : row + 1]
    positions = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[0]
    found = policy(model).mean_states(batch)
    torch.testing.assert_close(found[row], hidden[here].mean(dim=0), rtol=0, atol=1e-12)
    for parts in (policy(model, micro_batch_tokens=1), policy(model, micro_batch_tokens=23)):
        torch.testing.assert_close(parts.mean_states(batch), found, rtol=0, atol=1e-12)
    torch.testing.assert_close(policy(model).mean_states(widened(batch, 7)), found, rtol=0, atol=1e-12)
    shares = sum(policy(model).mean_states(batch, rank=rank, world=3) for rank in range(3))
    torch.testing.assert_close(shares, found, rtol=0, atol=1e-12)
    nothing = replace(batch, mask=torch.zeros_like(batch.mask))
    assert not policy(model).mean_states(nothing).any()


def test_rows_in_another_order_get_the_same_bonuses() -> None:
    model, objective = Toy(), plain(shaping=RepExp(coef=1.0, dimension=4))
    batch = off_policy(model)
    batch = replace(batch, raw_rewards=torch.ones_like(batch.rewards))
    order = torch.randperm(batch.num_rows, generator=torch.Generator().manual_seed(0))
    whole = Bench(model).step(objective, batch)
    assert Bench(model).step(objective, batch.rows(order)).distance(whole) < 1e-6 * whole.size
    assert whole.distance(Bench(model).step(plain(), batch)) > 1e-3
