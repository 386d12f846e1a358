"""CE-GPPO: what tokens beyond the thresholds keep of their gradient."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import gradient, handmade
from testbench import Bench, Toy, off_policy, plain

from trainer.contract.settings import ConfigError
from trainer.objective.surrogates.ce_gppo import CEGPPO
from trainer.objective.surrogates.ppo_clip import PPOClip


def slopes(surrogate: CEGPPO, ratios: list[float], advantages: list[float]) -> list[float]:
    """Gradient with respect to the log-prob of tokens with these ratios."""
    terms, batch = handmade([[math.log(r) - 1.25 for r in ratios]], [advantages], old=[[-1.25] * len(ratios)])
    return gradient(surrogate(terms, batch).loss, terms)[0]


def test_clipped_tokens_keep_the_gradient_of_the_threshold_times_their_share() -> None:
    # A > 0 at ratio 2: -1 * 1.2; A < 0 at ratio 0.5: 0.75 * 0.8 = 0.6. Half the shares, half the gradients.
    assert slopes(CEGPPO(), [2.0, 0.5], [1.0, -1.0]) == pytest.approx([-1.2, 0.6])
    half = CEGPPO(beta_low=0.375, beta_high=0.5)
    assert slopes(half, [2.0, 0.5], [2.0, -3.0]) == pytest.approx([-1.2, 0.9])


def test_within_the_thresholds_and_inward_of_them_it_is_ppo() -> None:
    # 1.1 and 0.9 are in band; ratio 2 with A < 0 and ratio 0.5 with A > 0 were never clipped.
    ratios, advantages = [1.1, 0.9, 2.0, 0.5, 11.0], [1.0, -1.0, -1.0, 1.0, -1.0]
    assert slopes(CEGPPO(), ratios, advantages) == pytest.approx([-1.1, 0.9, 2.0, -0.5, 0.0])  # the last: dual clip


def test_its_value_is_that_of_ppo() -> None:
    terms, batch = handmade([[math.log(2.0) - 1, math.log(0.5) - 1]], [[1.0, -1.0]], old=[[-1.0, -1.0]])
    assert CEGPPO()(terms, batch).loss.tolist() == [pytest.approx([-1.2, 0.8])]


def test_shares_of_zero_are_ppo_bit_for_bit() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy(), spread=1.0)
    ours = bench.step(plain(surrogate=CEGPPO(beta_low=0.0, beta_high=0.0, dual_clip=None)), batch)
    ppo = bench.step(plain(surrogate=PPOClip()), batch)
    assert ours.distance(ppo) == 0.0 and ours.stats == ppo.stats


def test_a_clip_fraction_counts_tokens_whose_gradient_is_gone() -> None:
    terms, batch = handmade([[math.log(2.0) - 1, math.log(0.5) - 1]], [[1.0, -1.0]], old=[[-1.0, -1.0]])
    assert not CEGPPO()(terms, batch).clipped.any()
    assert CEGPPO(beta_low=0.0)(terms, batch).clipped.tolist() == [[False, True]]
    assert torch.equal(CEGPPO(beta_low=0.0, beta_high=0.0)(terms, batch).clipped, PPOClip()(terms, batch).clipped)


@pytest.mark.parametrize("setting", [{"beta_low": -0.1}, {"beta_high": 1.5}, {"clip_low": 2.0}, {"dual_clip": 1.0}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"surrogate\.{key}={value}"):
        CEGPPO(**setting)
