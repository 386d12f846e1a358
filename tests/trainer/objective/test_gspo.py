"""GSPO: specification 1.4 by hand, on policy, against finite differences, and where it clips."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import gradient, handmade
from testbench import Bench, Toy, off_policy, on_policy, plain

from trainer.batch.types import TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.reductions import SequenceMean
from trainer.objective.surrogates.gspo import GSPO
from trainer.objective.surrogates.ppo_clip import PPOClip

WIDE = GSPO(clip_low=1.0, clip_high=100.0)


def test_every_token_carries_the_ratio_of_its_response() -> None:
    # Log-ratios 0.1, -0.3, 0.5: mean 0.1. The second row: -0.2.
    terms, batch = handmade([[-0.9, -1.3, -0.5], [-1.2, 0, 0]], [[2.0] * 3, [-1.0] * 3], old=[[-1.0] * 3] * 2)
    batch.mask[1, 1:] = False
    loss = WIDE(terms, batch).loss
    assert loss[0].tolist() == pytest.approx([-2 * math.exp(0.1)] * 3, abs=1e-12)
    assert loss[1, 0].item() == pytest.approx(math.exp(-0.2), abs=1e-12)


def test_unclipped_gradient_is_the_mean_of_s_a_over_the_length() -> None:
    terms, batch = handmade([[-0.9, -1.3, -0.5], [-1.2, 0, 0]], [[2.0] * 3, [-1.0] * 3], old=[[-1.0] * 3] * 2)
    batch.mask[1, 1:] = False
    reduced = torch.where(batch.mask, SequenceMean().scale(batch) * WIDE(terms, batch).loss, 0.0)
    # -(1/2) s_i A_i / |o_i| for each token.
    first, second = -0.5 * math.exp(0.1) * 2 / 3, 0.5 * math.exp(-0.2)
    rows = gradient(reduced, terms)
    assert rows[0] == pytest.approx([first] * 3, abs=1e-7)  # the reduction's factors are float32
    assert rows[1] == pytest.approx([second, 0, 0], abs=1e-7)


def test_finite_differences_of_the_reduced_loss() -> None:
    terms, batch = handmade([[-0.9, -1.3, -0.5], [-1.2, -2.0, -0.1]], [[2.0] * 3, [-1.0] * 3], old=[[-1.0] * 3] * 2)
    surrogate = GSPO(clip_low=0.5, clip_high=0.5)

    def loss(logprobs: torch.Tensor) -> torch.Tensor:
        out = surrogate(TokenTerms(logprobs=logprobs, entropy=terms.entropy), batch)
        return (SequenceMean().scale(batch) * out.loss).sum()

    assert torch.autograd.gradcheck(loss, terms.logprobs)


def test_on_policy_it_is_grpo_with_a_mean_per_response() -> None:
    bench, batch = Bench(Toy()), on_policy(Toy())
    grpo = bench.step(plain(reduction=SequenceMean()), batch)
    ours = bench.step(plain(surrogate=GSPO(), reduction=SequenceMean()), batch)
    assert grpo.size > 0.01
    assert ours.distance(grpo) == 0.0
    assert ours.distance(bench.step(plain(), batch)) > 1e-3  # not that of a mean over tokens


@pytest.mark.parametrize(("advantage", "log_ratio"), [(1.0, 0.01), (-1.0, -0.01)])
def test_a_response_is_clipped_as_a_whole_on_the_harmful_side_only(advantage: float, log_ratio: float) -> None:
    # Token ratios lie on both sides of the band; only their mean counts.
    old = [[-1.0, -1.0, -1.0]]
    far = [[-1.0 + log_ratio + 0.5, -1.0 + log_ratio - 0.5, -1.0 + log_ratio]]
    terms, batch = handmade(far, [[advantage] * 3], old=old)
    out = GSPO()(terms, batch)
    assert gradient(out.loss, terms) == [[0.0, 0.0, 0.0]]
    assert (bool(out.clipped_high.all()), bool(out.clipped_low.all())) == (advantage > 0, advantage < 0)
    terms, batch = handmade(far, [[-advantage] * 3], old=old)
    out = GSPO()(terms, batch)
    assert gradient(out.loss, terms)[0] == pytest.approx([advantage * math.exp(log_ratio)] * 3, abs=1e-12)
    assert not (out.clipped_high | out.clipped_low).any()


def test_one_token_is_ppo() -> None:
    terms, batch = handmade([[-0.9], [-1.4]], [[1.0], [1.0]], old=[[-1.0], [-1.0]])
    ours, ppo = (kind(clip_low=0.2, clip_high=0.2)(terms, batch).loss.tolist() for kind in (GSPO, PPOClip))
    assert ours == [pytest.approx(row, abs=1e-12) for row in ppo]


def test_padding_does_not_count_and_may_hold_anything() -> None:
    nan = float("nan")
    terms, batch = handmade([[-0.5, -1.0, 0.0]], [[1.0, 1.0, nan]], old=[[-1.0, -1.0, nan]], mask=[[True, True, False]])
    assert WIDE(terms, batch).loss[0, :2].tolist() == pytest.approx([-math.exp(0.25)] * 2, abs=1e-12)
    empty, batch = handmade([[0.0]], [[0.0]], mask=[[False]])
    assert torch.isfinite(WIDE(empty, batch).loss).all()


def test_absurd_ratios_are_clamped_at_ten_nats() -> None:
    terms, batch = handmade([[-1.0]], [[-1.0]], old=[[-90.0]])
    loss = GSPO()(terms, batch).loss
    assert loss.item() == pytest.approx(math.exp(10.0), rel=1e-12)
    assert gradient(loss, terms) == [[0.0]]


def test_off_policy_thresholds_act() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    tight = bench.step(plain(surrogate=GSPO(), reduction=SequenceMean()), batch)
    wide = bench.step(plain(surrogate=WIDE, reduction=SequenceMean()), batch)
    assert tight.distance(wide) > 1e-3
    assert tight.stats.means()["policy/clip_frac_low"] > 0


@pytest.mark.parametrize("setting", [{"clip_low": -0.1}, {"clip_low": 1.5}, {"clip_high": -0.2}])
def test_thresholds_out_of_range_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"surrogate\.{key}={value}.*give a number"):
        GSPO(**setting)
