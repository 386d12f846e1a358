"""BAPO: the search for bounds, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import HERE, gradient, handmade
from testbench import Bench, Toy, off_policy, plain

from trainer.contract.settings import ConfigError
from trainer.objective.surrogates.bapo import BAPO


def bounds(ratios: list[float], advantages: list[float], **settings: float) -> tuple[float, float]:
    values = (torch.tensor(column, dtype=torch.float64) for column in (ratios, advantages))
    return pytest.approx(BAPO(**settings).bounds(*values))


def test_balance_that_is_there_leaves_the_bounds_where_they_start() -> None:
    assert bounds([1.0, 1.0], [1.0, -1.0]) == (0.6, 1.2)
    assert bounds([3.0, 0.1], [1.0, -1.0]) == (0.6, 1.2)  # 1.2 against 0.6
    assert bounds([1.0], [1.0]) == (0.6, 1.2)  # nothing negative
    assert bounds([1.0, 1.0], [0.0, 0.0]) == (0.6, 1.2)


def test_low_goes_first_then_high_until_the_positive_tokens_carry_their_share() -> None:
    # Negative: 1.45 all along. Positive: min(3, high). low 0.6 -> 0.8 in four steps, then high 1.2, 1.3, 1.4, 1.5.
    assert bounds([3.0, 1.45], [1.0, -1.0]) == (0.8, 1.5)
    # 1.2 against 1.2 times 1 is enough.
    assert bounds([3.0, 1.0], [1.0, -1.0], low_start=0.8, balance=1.2) == (0.8, 1.2)


def test_where_no_bound_is_enough_both_end_at_their_largest() -> None:
    assert bounds([1.0, 3.0], [1.0, -1.0]) == (0.8, 2.0)
    assert bounds([1.0, 3.0], [1.0, -1.0], low_end=0.7, low_step=0.3, high_end=1.3, high_step=5.0) == (0.7, 1.3)


def test_the_loss_is_ppo_within_the_bounds_found() -> None:
    # As above: bounds 0.8 and 1.5. The third token, 0.7 with A < 0, counts 0.8 in the search and is clipped.
    ratios, advantages = [3.0, 1.45, 0.7, 1.4], [1.0, -1.0, -0.01, 0.0]
    terms, batch = handmade([[math.log(r) - 1.5 for r in ratios]], [advantages], old=[[-1.5] * 4])
    member = BAPO()
    batch.extras.update(member.prepare(batch, terms.detach(), HERE))
    assert {name: column.tolist() for name, column in batch.extras.items()} == {
        "bapo_low": pytest.approx([0.8]),
        "bapo_high": pytest.approx([1.5]),
    }
    found = member(terms, batch)
    assert gradient(found.loss, terms)[0] == pytest.approx([0.0, 1.45, 0.0, 0.0])
    assert found.loss[0].tolist() == pytest.approx([-1.5, 1.45, 0.008, 0.0])


def test_fixed_bounds_are_grpo_bit_for_bit() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy(), spread=1.0)
    fixed = BAPO(low_start=0.8, low_end=0.8, high_start=1.2, high_end=1.2)
    assert bench.step(plain(surrogate=fixed), batch).distance(bench.step(plain(), batch)) == 0.0


@pytest.mark.parametrize("setting", [{"low_start": 0.9}, {"high_start": 3.0}])
def test_a_start_beyond_its_end_is_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"surrogate\.{key}={value} cannot be used: give at most surrogate\."):
        BAPO(**setting)
