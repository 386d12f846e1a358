"""PSR, NSR and W-REINFORCE: the statements of specification 14.3, dropped rows and rows of weight zero."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import CONTEXT, Bench, Toy, off_policy, plain, rewarded
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.settings import ConfigError
from trainer.loop import with_advantages
from trainer.objective.advantages.signed import Signed
from trainer.objective.objective import Objective
from trainer.objective.reductions import TokenMean
from trainer.objective.regularizers.entropy_bonus import EntropyBonus

PSR, NSR = Signed(positive=1.0, negative=0.0), Signed(positive=0.0, negative=1.0)


def gradient(objective: Objective, batch: TokenBatch) -> dict[str, Tensor]:
    return Bench(Toy()).step(objective, batch).gradient


def test_rule() -> None:
    rewards = [1.0, 0.0, 0.5, 0.75, -1.0]  # right is more than half
    assert Signed()(rewarded(rewards)).tolist() == pytest.approx([0.1, -1, -1, 0.1, -1], abs=1e-7)
    assert PSR(rewarded(rewards)).tolist() == [1, 0, 0, 1, 0]
    assert NSR(rewarded(rewards)).tolist() == [0, -1, -1, 0, -1]


def test_equal_weights_are_reinforce_with_plus_and_minus_one() -> None:
    assert Signed(positive=1.0, negative=1.0)(rewarded([1, 0, 1])).tolist() == [1, -1, 1]


def test_groups_that_are_all_right_or_all_wrong_train_too() -> None:
    batch = off_policy(Toy())
    for value, learner in ((1.0, PSR), (0.0, NSR)):
        equal = torch.full_like(batch.rewards, value)
        same = replace(batch, rewards=equal, raw_rewards=equal)
        assert gradient(plain(advantage=learner), same)["head.weight"].any()
        assert not gradient(plain(), same)["head.weight"].any()


def test_shaping_does_not_reach_it() -> None:
    batch = rewarded([1, 0])
    assert torch.equal(Signed()(replace(batch, rewards=batch.rewards - 5)), Signed()(batch))


@pytest.mark.parametrize("signed", [PSR, NSR])
def test_dropped_rows_are_as_if_they_had_never_been_there(signed: Signed) -> None:
    batch = off_policy(Toy())
    kept = (signed(batch) != 0).nonzero().squeeze(1)
    assert 0 < len(kept) < batch.num_rows
    slots = {"advantage": signed, "regularizer": {"bonus": EntropyBonus(coef=0.1)}}
    dropped = gradient(plain(reduction=TokenMean(rows="signal"), **slots), batch)
    alone = gradient(plain(**slots), batch.rows(kept))
    for name, value in dropped.items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-8)  # denominators are float32


def test_rows_of_weight_zero_count_in_the_denominator() -> None:
    batch = off_policy(Toy())
    ready = with_advantages(batch, plain(advantage=NSR), CONTEXT)
    tokens = int((ready.mask & (ready.advantages != 0)).sum())  # type: ignore[operator]
    weighted = gradient(plain(advantage=NSR), batch)
    dropped = gradient(plain(advantage=NSR, reduction=TokenMean(rows="signal")), batch)
    for name, value in weighted.items():
        torch.testing.assert_close(value, dropped[name] * tokens / batch.num_tokens, rtol=0, atol=1e-8)


def test_no_row_left_is_no_gradient() -> None:
    batch = off_policy(Toy())
    wrong = torch.zeros_like(batch.rewards)
    objective = plain(advantage=PSR, reduction=TokenMean(rows="signal"))
    outcome = Bench(Toy()).step(objective, replace(batch, rewards=wrong, raw_rewards=wrong))
    assert outcome.size == 0.0
    assert outcome.stats.means()["policy/loss"] == 0.0


@pytest.mark.parametrize("settings", [{"positive": -1.0}, {"negative": -0.5}, {"positive": 0.0, "negative": 0.0}])
def test_weights_that_mean_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"advantage\.(positive|negative)="):
        Signed(**settings)
