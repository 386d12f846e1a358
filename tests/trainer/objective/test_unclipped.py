"""The policy gradient with ratios and nothing else."""

from __future__ import annotations

import pytest
from handmade import gradient, handmade
from testbench import Bench, Toy, off_policy, on_policy, plain

from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.surrogates.unclipped import Unclipped


def test_loss_and_gradient_are_minus_advantage_times_ratio() -> None:
    # exp(0.5) = 1.648721, exp(-2) = 0.135335.
    terms, batch = handmade([[-1.0, -3.0]], [[2.0, -1.0]], old=[[-1.5, -1.0]])
    loss = Unclipped()(terms, batch).loss
    assert loss[0].tolist() == pytest.approx([-3.297443, 0.135335], abs=1e-6)
    assert gradient(loss, terms)[0] == pytest.approx([-3.297443, 0.135335], abs=1e-6)


def test_it_is_ppo_without_thresholds_bit_for_bit_and_grpo_on_policy() -> None:
    bench, free = Bench(Toy()), plain(surrogate=PPOClip(clip_low=None, clip_high=None))
    batch = off_policy(Toy(), spread=2.0)
    ours = bench.step(plain(surrogate=Unclipped()), batch)
    assert ours.distance(bench.step(free, batch)) == 0.0
    assert ours.distance(bench.step(plain(), batch)) > 1e-3
    assert ours.stats.means()["policy/clip_frac_high"] == ours.stats.means()["policy/clip_frac_low"] == 0.0
    first = on_policy(Toy())
    assert bench.step(plain(surrogate=Unclipped()), first).distance(bench.step(plain(), first)) == 0.0
