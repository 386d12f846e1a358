"""Rand-Pos-Clip: random tokens of positive advantage, and nothing else, lose their gradient (specification 2.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from handmade import HERE, handmade
from testbench import Bench, Toy, off_policy, plain

from trainer.contract.settings import ConfigError
from trainer.objective.base import Context
from trainer.objective.weights.rand_pos_clip import RandPosClip
from trainer.objective.weights.sign import Sign


def weights(member: RandPosClip, advantages: list[list[float]], context: Context = HERE) -> list[float]:
    terms, batch = handmade([[-1.0] * len(row) for row in advantages], advantages)
    values: list[float] = member(batch, terms.detach(), context).flatten().tolist()
    return values


def test_a_share_of_the_positive_tokens_is_drawn() -> None:
    advantages = [[1.0, 2.0, -1.0], [0.0, 3.0, 4.0]]
    drawn = {tuple(weights(RandPosClip(frac=0.5), advantages, replace(HERE, step=step))) for step in range(60)}
    assert all(sum(row) == 4 and row[2] == row[3] == 1 for row in drawn)
    assert len(drawn) == 6  # every pair of the four
    assert sum(weights(RandPosClip(), advantages)) == 5  # at least one
    assert weights(RandPosClip(frac=0.0), advantages) == [1] * 6
    assert weights(RandPosClip(frac=1.0), [[-1.0, 0.0]]) == [1, 1]


def test_all_of_them_is_training_on_mistakes_only() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    ours = bench.step(plain(weight={"rand": RandPosClip(frac=1.0)}), batch)
    sign = bench.step(plain(weight={"sign": Sign(positive=0.0)}), batch)
    assert ours.distance(sign) == 0.0
    assert ours.distance(bench.step(plain(), batch)) > 1e-3


def test_it_says_that_its_fraction_is_assumed() -> None:
    assert RandPosClip.about.status == "reconstructed"


@pytest.mark.parametrize("frac", [-0.1, 1.5])
def test_a_share_out_of_range_is_refused(frac: float) -> None:
    with pytest.raises(ConfigError, match=rf"weight\.rand_pos_clip\.frac={frac}"):
        RandPosClip(frac=frac)
