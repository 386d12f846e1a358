"""The records: sums and counts, sums under a mask, and columns that travel together."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from testbench import PAD, Toy, make_rollouts, off_policy, policy

from trainer.batch.collate import collate
from trainer.batch.types import ScoredBatch, StepStats, TokenBatch, TokenTerms, masked_sum


def test_means_are_of_sums_and_not_of_means() -> None:
    # 3 tokens with mean 1 and 1 token with value 5: (3 + 5) / 4 = 2, while the mean of the means would be 3.
    one, two = StepStats(), StepStats()
    one.add("x", 3.0, 3)
    two.add("x", torch.tensor(5.0), torch.tensor(1))
    one.merge(two)
    assert one.means() == {"x": 2.0}


def test_maxima_survive_merging_and_stand_beside_means() -> None:
    one, two = StepStats(), StepStats()
    one.peak("peak", 2.0)
    two.peak("peak", torch.tensor(7.0))
    two.add("only_there", 4.0)
    one.merge(two)
    one.peak("peak", 3.0)
    assert one.means() == {"peak": 7.0, "only_there": 4.0}


def test_a_key_without_a_count_has_no_mean() -> None:
    stats = StepStats()
    stats.add("empty", 0.0, 0)
    assert stats.means() == {}


def test_masked_sum_does_not_see_what_is_off_the_mask() -> None:
    values = torch.tensor([[1.0, math.nan], [math.inf, 2.5]], requires_grad=True)
    total = masked_sum(values, torch.tensor([[True, False], [False, True]]))
    assert total.item() == 3.5
    assert torch.autograd.grad(total, values)[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_masked_sum_is_in_float32_at_least() -> None:
    # bfloat16 has 8 bits of mantissa: it knows 256 and 258, but not 257.
    assert masked_sum(torch.ones(257, dtype=torch.bfloat16), torch.ones(257, dtype=torch.bool)).item() == 257.0
    assert masked_sum(torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.bool)).dtype == torch.float64


def test_detached_terms_keep_every_number_and_no_graph() -> None:
    leaf = torch.ones(1, 2, requires_grad=True)
    terms = TokenTerms(logprobs=leaf * 2, entropy=leaf * 3, extras={"more": leaf * 4}).detach()
    columns = [terms.logprobs, terms.entropy, terms.extras["more"]]
    assert [column[0, 0].item() for column in columns] == [2.0, 3.0, 4.0]
    assert not any(column.requires_grad for column in columns)


def test_taking_all_rows_keeps_every_column() -> None:
    batch = off_policy(Toy())
    batch = replace(batch, extras={"own": batch.old_entropy})
    back = batch.rows(torch.arange(batch.num_rows)).to(torch.device("cpu"))
    for spec in fields(TokenBatch):
        value, again = getattr(batch, spec.name), getattr(back, spec.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, again), spec.name
        elif spec.name != "extras":
            assert again is None
    assert torch.equal(back.extras["own"], batch.old_entropy)


def test_batches_cannot_be_changed_in_place() -> None:
    batch = collate(make_rollouts(), pad_id=PAD)
    with pytest.raises(FrozenInstanceError):
        batch.mask = None  # type: ignore[misc]


def test_columns_are_zero_off_the_mask() -> None:
    model = Toy()
    batch = off_policy(model)
    terms = policy(model).measure(batch, {"sum_p2_logp_h"})
    for column in (batch.sampler_logprobs, terms.logprobs, terms.entropy, terms.extras["sum_p2_logp_h"]):
        assert not column[~batch.mask].any()
        assert column[batch.mask].all()


def test_the_policy_loss_gets_rows_with_old_log_probs_and_advantages() -> None:
    batch = off_policy(Toy())
    batch = replace(batch, advantages=torch.full_like(batch.sampler_logprobs, 2.0))
    scored = ScoredBatch.of(batch)
    assert scored.advantages is batch.advantages and scored.old_logprobs is batch.old_logprobs
    part = scored.rows(torch.tensor([1]))
    assert isinstance(part, ScoredBatch) and part.advantages.shape[0] == 1
    for absent in ("advantages", "old_logprobs"):
        with pytest.raises(ValueError, match=f"rows without {absent} have no policy loss"):
            ScoredBatch.of(replace(batch, **{absent: None}))
