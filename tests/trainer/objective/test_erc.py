"""ERC: which entropies have moved too far."""

from __future__ import annotations

from dataclasses import replace

import pytest
from handmade import HERE, handmade
from testbench import Bench, Toy, off_policy, plain

from trainer.objective.weights.erc import ERC


def weights(now: list[float], old: list[float], member: ERC | None = None) -> list[float]:
    none = [[0.0] * len(now)]
    terms, batch = handmade(none, none, entropy=[now], old_entropy=[old])
    row: list[float] = (member or ERC())(batch, terms.detach(), HERE)[0].tolist()
    return row


def test_ratios_within_five_percent_are_kept() -> None:
    # 1.04, 0.96, 1.06 and 0.94 of what it was.
    assert weights([1.04, 0.96, 1.06, 0.94], [1.0] * 4) == [1, 1, 0, 0]
    assert weights([1.04, 0.96, 1.06, 0.94], [1.0] * 4, ERC(low=0.9, high=1.05)) == [1, 1, 0, 1]


def test_the_ends_are_outside() -> None:
    assert weights([1.0, 1.01, 0.99], [1.0] * 3, ERC(low=1.0)) == [0, 1, 0]
    assert weights([1.0, 1.01, 0.99], [1.0] * 3, ERC(high=1.0)) == [0, 0, 1]


def test_certain_tokens_have_not_moved_but_for_those_that_were_not() -> None:
    # (0 + 1e-8) / (0 + 1e-8) = 1; a rounding below 0 counts as 0; from 1e-8 to 0 is half.
    assert weights([0.0, -1e-9, 0.0, 0.1], [0.0, 0.0, 1e-8, 0.0]) == [1, 1, 0, 0]


def test_masked_tokens_lose_their_gradient_and_the_denominator_stays() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    moved = replace(batch, old_entropy=batch.old_entropy * (1 + 0.1 * (batch.targets % 2)))
    ours = bench.step(plain(weight={"erc": ERC()}), moved)
    kept = batch.mask & (batch.targets % 2 == 0)
    alone = bench.step(plain(), replace(batch, mask=kept))
    share = int(kept.sum()) / batch.num_tokens
    assert 0 < share < 1
    assert ours.stats.means()["policy/weight_zero_frac"] == pytest.approx(1 - share)
    assert max(float((v - share * alone.gradient[k]).abs().max()) for k, v in ours.gradient.items()) < 1e-7


def test_in_the_first_update_nothing_has_moved() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    assert bench.step(plain(weight={"erc": ERC()}), batch).distance(bench.step(plain(), batch)) == 0.0
