"""ARM: the statements of specification 12, and confidence by hand."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, exp, log

import pytest
import torch
from testbench import Toy, on_policy, rewarded

from trainer.batch.types import TokenBatch
from trainer.contract.settings import ConfigError
from trainer.objective.advantages.arm import ARM, low_confidence
from trainer.objective.advantages.grpo import GRPO


def certain(batch: TokenBatch, probabilities: list[float]) -> TokenBatch:
    """Row i sampled every token with probability i."""
    logprobs = torch.tensor(probabilities).log()[:, None].expand(batch.mask.shape)
    return replace(batch, sampler_logprobs=torch.where(batch.mask, logprobs, torch.zeros(())))


def test_confidence_is_that_of_the_least_likely_fifth() -> None:
    batch = on_policy(Toy(), groups=1, group_size=1)
    mask = torch.zeros(1, 14, dtype=torch.bool)
    mask[0, 2:13] = True  # 11 tokens: ceil(2.2) = 3 of them
    values = [0.9, 0.1, 0.8, 0.95, 0.2, 0.99, 0.9, 0.4, 0.7, 0.6, 0.5]
    logprobs = torch.full((1, 14), -50.0).masked_scatter(mask, torch.tensor(values).log())
    taken = replace(batch, mask=mask, sampler_logprobs=logprobs)
    assert low_confidence(taken, 0.2).tolist() == pytest.approx([(0.1 * 0.2 * 0.4) ** (1 / 3)], rel=1e-6)
    assert low_confidence(taken, 1.0).tolist() == pytest.approx([exp(sum(map(log, values)) / 11)], rel=1e-6)


@pytest.mark.parametrize("length", range(1, 12))
def test_a_fifth_is_rounded_up_and_never_nothing(length: int) -> None:
    batch = on_policy(Toy(), groups=1, group_size=1)
    mask = torch.arange(12)[None] < length
    logprobs = -torch.arange(12.0)[None]  # the last token is the least likely
    taken = ceil(length / 5)
    expected = exp(-sum(range(length - taken, length)) / taken)
    got = low_confidence(replace(batch, mask=mask, sampler_logprobs=logprobs), 0.2)
    assert got.tolist() == pytest.approx([expected], rel=1e-6)


def test_a_row_without_tokens_and_one_of_certain_tokens_are_confidence_one() -> None:
    batch = rewarded([1.0, 0.0])
    mask = batch.mask.clone()
    mask[0] = False
    both = replace(certain(batch, [0.5, 1.0]), mask=mask)
    assert low_confidence(both, 0.2).tolist() == [1.0, 1.0]
    assert torch.isfinite(ARM()(both)).all()


def test_a_token_of_probability_zero_is_confidence_zero() -> None:
    got = ARM(alpha=1.0)(certain(rewarded([1.0, 0.0]), [0.0, 1.0]))
    assert (got - GRPO()(rewarded([1.0, 0.0]))).tolist() == pytest.approx([0.5, -0.5], abs=1e-6)


def test_alpha_zero_is_grpo() -> None:
    batch = on_policy(Toy())
    assert torch.equal(ARM(alpha=0.0)(batch), GRPO()(batch))


def test_a_group_without_a_right_response_is_grpo() -> None:
    batch = certain(rewarded([0.0, 0.5, 0.0]), [0.9, 0.5, 0.1])
    assert torch.equal(ARM(alpha=3.0)(batch), GRPO()(batch))


def test_less_confidence_is_more_advantage_by_alpha_times_the_difference() -> None:
    batch = certain(rewarded([1.0, 1.0, 0.0]), [0.9, 0.5, 0.7])
    got = ARM(alpha=0.5)(batch)
    # c = 0.9, 0.5, 0.7 with mean 0.7: shifts -0.1, 0.1 and 0; the two correct ones differ by 0.5 * (0.9 - 0.5).
    assert (got - GRPO()(batch)).tolist() == pytest.approx([-0.1, 0.1, 0.0], abs=1e-6)
    assert float(got[1] - got[0]) == pytest.approx(0.5 * (0.9 - 0.5), abs=1e-6)


def test_groups_that_are_all_right_are_corrected_unless_told_otherwise() -> None:
    batch = certain(rewarded([1.0, 1.0]), [0.9, 0.5])
    assert ARM(alpha=1.0)(batch).tolist() == pytest.approx([-0.2, 0.2], abs=1e-6)
    assert ARM(alpha=1.0, skip_all_correct=True)(batch).tolist() == [0.0, 0.0]


def test_the_correction_adds_up_to_zero_in_every_group() -> None:
    batch = on_policy(Toy(), groups=5, group_size=4)
    shift = (ARM(alpha=2.0)(batch) - GRPO()(batch)).double()
    for number in range(5):
        assert float(shift[batch.group == number].sum()) == pytest.approx(0.0, abs=1e-6)
    assert shift.abs().max() > 0.01


def test_a_group_of_one_keeps_its_reward() -> None:
    assert ARM()(certain(rewarded([1.0]), [0.3])).tolist() == [1.0]


@pytest.mark.parametrize("settings", [{"alpha": -0.1}, {"low_frac": 0.0}, {"low_frac": 1.5}, {"eps": -1.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"advantage\."):
        ARM(**settings)
