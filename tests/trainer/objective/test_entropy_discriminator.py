"""Clip_B and Clip_V: who is dropped, on distributions worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from handmade import HERE, handmade
from testbench import Bench, Toy, off_policy, on_policy, plain

from trainer.batch.types import TokenBatch
from trainer.contract.settings import ConfigError, filled
from trainer.loop import with_advantages
from trainer.objective.weights.entropy_discriminator import EntropyDiscriminator

P, H, E = (0.6, 0.3, 0.1), 0.897946, 0.097774
"""One distribution, its entropy, and E = sum p^2 (ln p + H); S = 0.232272, -0.091808, -0.140464."""


def batch_of(advantages: list[float], tokens: list[int]) -> TokenBatch:
    """One response whose tokens were all drawn from P."""
    row, level = [[math.log(P[token]) for token in tokens]], [[H] * len(tokens)]
    batch = handmade(row, [advantages], entropy=level)[1]
    return replace(batch, extras={"old_sum_p2_logp_h": torch.full((1, len(tokens)), E, dtype=torch.float64)})


def kept(member: EntropyDiscriminator, advantages: list[float], tokens: list[int]) -> list[bool]:
    row: list[bool] = (member(batch_of(advantages, tokens), None, HERE) > 0)[0].tolist()
    return row


def test_against_the_batch_mean() -> None:
    # S of the three tokens adds up to 0, so its mean is 0, and its deviation sqrt((0.232272^2 + 0.091808^2 +
    # 0.140464^2) / 3) = 0.165445: the excesses are 1.404, -0.555 and -0.849 deviations.
    for mu, expected in ((0.5, [True, False, False]), (0.7, [True, True, False]), (0.9, [True, True, True])):
        assert kept(EntropyDiscriminator(mu=mu), [-1.0] * 3, [0, 1, 2]) == expected


def test_rewarded_tokens_are_dropped_on_the_other_side_and_only_if_asked_for() -> None:
    assert kept(EntropyDiscriminator(mu=0.7), [1.0] * 3, [0, 1, 2]) == [True, True, True]
    both = EntropyDiscriminator(mu=0.7, sides="both")
    assert kept(both, [1.0] * 3, [0, 1, 2]) == [False, True, True]
    assert kept(both, [1.0, -1.0, -1.0], [0, 1, 2]) == [False, True, False]
    assert kept(both, [0.0] * 3, [0, 1, 2]) == [True, True, True]


def test_against_the_vocabulary_it_is_not_centred() -> None:
    # S - E = 0.134498, -0.189583, -0.238238, with a deviation of 0.165445: 0.813, -1.146 and -1.440 deviations.
    def clip_v(mu: float) -> EntropyDiscriminator:
        return EntropyDiscriminator(baseline="vocabulary", mu=mu)

    for mu, expected in ((1.0, [True, False, False]), (1.3, [True, True, False]), (1.5, [True, True, True])):
        assert kept(clip_v(mu), [-1.0] * 3, [0, 1, 2]) == expected
    assert kept(replace(clip_v(0.8), sides="both"), [1.0] * 3, [0, 1, 2]) == [False, True, True]


def test_no_more_than_a_share_is_dropped_and_those_farthest_out_first() -> None:
    tokens, negative = [0, 1, 2, 2, 0, 0], [-1.0] * 6
    assert kept(EntropyDiscriminator(mu=0.0), negative, tokens) == [True, False, False, False, True, True]
    two = EntropyDiscriminator(mu=0.0, max_frac=0.34)
    assert kept(two, negative, tokens) == [True, True, False, False, True, True]


def test_what_is_kept_is_divided_by_its_own_number() -> None:
    batch = batch_of([-1.0] * 3, [0, 1, 2])
    assert EntropyDiscriminator(mu=0.7)(batch, None, HERE)[0].tolist() == pytest.approx([1.5, 1.5, 0.0])
    whole = EntropyDiscriminator(mu=0.7, renormalise=False)
    assert whole(batch, None, HERE)[0].tolist() == [1.0, 1.0, 0.0]


def test_dropping_is_masking() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    member = EntropyDiscriminator(mu=0.5)
    ours = bench.step(plain(weight={"clip_b": member}), batch)
    out = member.dropped(with_advantages(batch, plain(), HERE))
    assert 0 < int(out.sum()) < batch.num_tokens
    alone = bench.step(plain(), replace(batch, mask=batch.mask & ~out))
    for name, value in ours.gradient.items():
        torch.testing.assert_close(value, alone.gradient[name], rtol=0, atol=1e-6)


def test_tokens_without_a_spread_and_a_distant_threshold_leave_grpo() -> None:
    assert kept(EntropyDiscriminator(mu=0.0), [-1.0] * 3, [1, 1, 1]) == [True] * 3
    bench, batch = Bench(Toy()), on_policy(Toy())
    for member in (EntropyDiscriminator(mu=1e9), EntropyDiscriminator(mu=1e9, baseline="vocabulary", sides="both")):
        assert bench.step(plain(weight={"clip": member}), batch).distance(bench.step(plain(), batch)) == 0.0


def test_the_renyi_entropy_is_measured_with_it() -> None:
    outcome = Bench(Toy()).step(plain(weight={"clip": EntropyDiscriminator(baseline="vocabulary")}), on_policy(Toy()))
    assert {"old_sum_p2", "old_sum_p2_logp_h"} <= outcome.batch.extras.keys()
    assert EntropyDiscriminator().old_statistics == frozenset()


@pytest.mark.parametrize("setting", [{"mu": -1.0}, {"max_frac": 1.5}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"weight\.clip_v\.{key}={value} cannot be used: give a number"):
        filled(EntropyDiscriminator, setting, "weight.clip_v")
