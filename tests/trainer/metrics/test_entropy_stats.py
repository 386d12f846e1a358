"""Policy entropy: sums and counts, by sign, independent of how the batch is cut."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from trainer.batch.types import StepStats, TokenBatch
from trainer.metrics.entropy import entropy_stats
from trainer.metrics.table import check


def make_batch(mask: list[list[int]], entropy: list[list[float]], advantages: list[list[float]]) -> TokenBatch:
    """A batch with the given columns; old log-probs are minus twice the entropy."""
    rows, width = len(mask), len(mask[0])
    ids = torch.zeros(rows, width, dtype=torch.long)
    return TokenBatch(
        inputs=ids,
        targets=ids,
        positions=ids,
        lengths=torch.full((rows,), width),
        prompt_lengths=torch.ones(rows, dtype=torch.long),
        mask=torch.tensor(mask, dtype=torch.bool),
        sampler_logprobs=torch.zeros(rows, width),
        rewards=torch.zeros(rows),
        raw_rewards=torch.zeros(rows),
        group=torch.arange(rows),
        truncated=torch.zeros(rows, dtype=torch.bool),
        old_logprobs=-2 * torch.tensor(entropy),
        old_entropy=torch.tensor(entropy),
        advantages=torch.tensor(advantages),
    )


def example() -> TokenBatch:
    # Off the mask sits inf: it must not leak into any sum.
    return make_batch(
        mask=[[0, 1, 1, 1], [0, 1, 0, 0], [1, 1, 0, 0]],
        entropy=[[math.inf, 1.0, 2.0, 0.0], [math.inf, 4.0, math.inf, math.inf], [0.04, 0.06, 0.0, 0.0]],
        advantages=[[0.0, 1.0, 1.0, 1.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    )


def test_by_hand() -> None:
    stats = entropy_stats(example())
    means = stats.means()
    check(means)
    # Six tokens: 1, 2, 0 (positive), 4 (negative), 0.04, 0.06 (no advantage). The mean of row means is 1.68.
    assert means["policy/entropy"] == pytest.approx(7.1 / 6)
    assert means["policy/entropy_positive"] == pytest.approx(1.0)
    assert means["policy/entropy_negative"] == pytest.approx(4.0)
    assert means["policy/surprisal"] == pytest.approx(14.2 / 6)
    assert means["policy/certain_frac"] == pytest.approx(2 / 6)  # 0 and 0.04
    assert means["policy/advantage_positive_frac"] == 0.5
    assert stats.counts["policy/entropy_negative"] == 1
    assert "policy/renyi2_entropy" not in means


def test_the_renyi_entropy_is_there_where_a_member_asked_for_the_collision_probability() -> None:
    batch = example()
    # Six tokens: four certain ones, one of two and one of four equal candidates: (ln 2 + ln 4) / 6. Off the mask inf.
    agreement = torch.tensor([[math.inf, 0.5, 0.25, 1.0], [math.inf, 1.0, math.inf, math.inf], [1.0, 1.0, 0.0, 0.0]])
    means = entropy_stats(replace(batch, extras={"old_sum_p2": agreement})).means()
    check(means)
    assert means["policy/renyi2_entropy"] == pytest.approx(math.log(8) / 6)


def test_pieces_add_up_to_the_whole() -> None:
    batch, merged = example(), StepStats()
    for rows in ([0], [1, 2]):
        piece = entropy_stats(batch.rows(torch.tensor(rows)))
        for key, total in piece.sums.items():
            merged.add(key, total, piece.counts[key])
    assert merged.means() == pytest.approx(entropy_stats(batch).means())


def test_without_negative_advantages_there_is_no_negative_entropy() -> None:
    batch = example().rows(torch.tensor([0]))
    assert "policy/entropy_negative" not in entropy_stats(batch).means()


@pytest.mark.parametrize("missing", ["old_entropy", "old_logprobs", "advantages"])
def test_missing_column_is_named(missing: str) -> None:
    with pytest.raises(ValueError, match="run those passes first"):
        entropy_stats(replace(example(), **{missing: None}))
