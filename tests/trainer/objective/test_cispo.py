"""CISPO: specification 1.5, gradients rather than values."""

from __future__ import annotations

import math

import pytest
from handmade import gradient, handmade
from testbench import Bench, Toy, off_policy, on_policy, plain

from trainer.contract.settings import ConfigError
from trainer.objective.surrogates.cispo import CISPO
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.surrogates.unclipped import Unclipped


def slopes(surrogate: CISPO | PPOClip, ratios: list[float], advantages: list[float]) -> list[float]:
    """Gradient with respect to the log-prob of tokens with these ratios."""
    terms, batch = handmade([[math.log(r) - 1.25 for r in ratios]], [advantages], old=[[-1.25] * len(ratios)])
    return gradient(surrogate(terms, batch).loss, terms)[0]


def test_a_ratio_of_ten_counts_as_the_upper_bound_where_grpo_gives_nothing() -> None:
    assert slopes(CISPO(clip_high=0.28), [10.0, 1.0, 0.1], [1.0, 2.0, 2.0]) == pytest.approx([-1.28, -2.0, -0.2])
    assert slopes(PPOClip(clip_high=0.28), [10.0], [1.0]) == [0.0]


def test_negative_advantages_are_bounded_as_well_and_never_dropped() -> None:
    assert slopes(CISPO(clip_high=0.28), [10.0, 0.5], [-1.0, -1.0]) == pytest.approx([1.28, 0.5])


def test_both_bounds_as_in_verl_and_none() -> None:
    assert slopes(CISPO(clip_low=0.2, clip_high=0.2), [0.1, 10.0], [1.0, -1.0]) == pytest.approx([-0.8, 1.2])
    assert slopes(CISPO(clip_low=None, clip_high=None), [0.1, 10.0], [1.0, -1.0]) == pytest.approx([-0.1, 10.0])
    assert slopes(CISPO(), [6.0], [1.0]) == pytest.approx([-5.0])  # the default: at most 5


def test_on_policy_it_is_reinforce_which_is_grpo() -> None:
    bench, batch = Bench(Toy()), on_policy(Toy())
    ours, grpo = bench.step(plain(surrogate=CISPO()), batch), bench.step(plain(), batch)
    assert grpo.size > 0.01
    assert ours.distance(grpo) < 1e-12


def test_below_its_bounds_it_has_the_gradient_of_the_unclipped_surrogate() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    free = bench.step(plain(surrogate=Unclipped()), batch)
    assert bench.step(plain(surrogate=CISPO(clip_high=None)), batch).distance(free) < 1e-12
    assert bench.step(plain(surrogate=CISPO(clip_high=0.05)), batch).distance(free) > 1e-3


def test_no_gradient_is_ever_removed() -> None:
    outcome = Bench(Toy()).step(plain(surrogate=CISPO(clip_low=0.1, clip_high=0.1)), off_policy(Toy(), spread=2.0))
    assert outcome.stats.means()["policy/clip_frac_high"] == outcome.stats.means()["policy/clip_frac_low"] == 0.0
    assert outcome.stats.means()["policy/ratio_max"] > 1.1


@pytest.mark.parametrize("setting", [{"clip_low": -0.1}, {"clip_low": 1.5}, {"clip_high": -0.2}])
def test_bounds_out_of_range_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"surrogate\.{key}={value}.*or null for none"):
        CISPO(**setting)
