"""SCOPE: correct responses weighed as if sampled at another temperature, and the controller of how much."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import CONTEXT, Bench, Toy, off_policy, plain, policy, rewarded

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.advantages.scope import SCOPE
from trainer.objective.controllers.scope import SCOPEController


def pull(entropy: float, rewards: list[float]) -> float:
    servo, batch = SCOPEController(target_entropy=0.5), rewarded(rewards)
    batch = replace(batch, sampler_logprobs=torch.full_like(batch.sampler_logprobs, -entropy))
    return servo.value(servo.begin_step(servo.initial_state(), batch, CONTEXT), CONTEXT)


def test_the_controller_by_hand() -> None:
    # One of four correct: a = 0.1 / 0.25 = 0.4, and 0.4 / 1.4 = 0.2857; the error of 0.3 nats counts as 0.1.
    assert pull(0.2, [1, 0, 0, 0]) == pytest.approx(2 / 7)
    assert pull(0.8, [1, 0, 0, 0]) == pytest.approx(-2 / 7)
    # An error of 0.05 with two of four correct: a = 0.1.
    assert pull(0.45, [1, 1, 0, 0]) == pytest.approx(1 / 11)
    assert pull(0.2, [0, 0, 0, 0]) == 0


def test_rows_by_hand() -> None:
    # Standard deviation of [1, 0, 0, 0] is 1/2 and the mean 1/4, so GRPO says 3/2 and -1/2; a quarter goes over.
    found = SCOPE(pull=0.25, eps=0.0)(rewarded([1, 0, 0, 0]))
    assert found.tolist() == [0.75 * 1.5 + 0.25, *[0.75 * -0.5] * 3]
    # Where all are correct GRPO is silent and this is not.
    assert SCOPE(pull=-0.25)(rewarded([1, 1])).tolist() == [0.25, 0.25]


def test_a_token_weighs_what_the_other_temperature_makes_of_its_probability() -> None:
    """p = [1/5, 4/5] is [1/3, 2/3] at twice the temperature and [1/17, 16/17] at half of it."""
    model = Toy()
    batch = rewarded([1.0, 0.0])
    ones = torch.ones_like(batch.sampler_logprobs)
    batch = replace(batch, old_logprobs=(ones / 5).log(), advantages=torch.tensor([[1.0], [-1.0]]) * ones)
    extras = {"old_tempered_logprobs@2.0": (ones / 3).log(), "old_tempered_logprobs@0.5": (ones / 17).log()}
    terms = TokenTerms(logprobs=ones, entropy=ones)
    for share, weight in ((0.5, 5 / 3), (-0.5, 5 / 17)):
        scope = SCOPE(pull=share, hot=2.0, cold=0.5)
        found = scope.adjusted(terms, ScoredBatch.of(replace(batch, extras=extras)))
        torch.testing.assert_close(found[0], 1.0 + 0.5 * (weight - 1) * ones[0])
        assert found[1].unique().tolist() == [-1.0], "an incorrect response has no share"
        assert scope.old_statistics <= set(policy(model).measure(batch, scope.old_statistics).extras)


def test_a_factor_of_one_weighs_every_token_one() -> None:
    batch = off_policy(Toy())
    plainly = replace(batch, old_logprobs=policy(Toy()).measure(batch).logprobs)
    for share in (0.3, -0.3):
        outcome = Bench(Toy()).step(plain(advantage=SCOPE(pull=share, hot=1.0, cold=1.0)), plainly)
        assert outcome.batch.advantages is not None
        constant = plain(advantage=SCOPE(pull=0.0))
        rows = SCOPE(pull=share)(plainly)
        spoilt = Bench(Toy(), spoil=lambda b, rows=rows: replace(b, advantages=rows[:, None] * b.mask))
        assert outcome.distance(spoilt.step(constant, plainly)) < 1e-6


def test_on_target_it_is_grpo_bit_for_bit() -> None:
    driven = plain(advantage=SCOPE(), controller={"scope": SCOPEController(max_error=0.0)})
    batch = off_policy(Toy())
    assert Bench(Toy()).step(driven, batch).distance(Bench(Toy()).step(plain(), batch)) == 0


@pytest.mark.parametrize(
    ("settings", "message"), [({"pull": 1.5}, "pull=1.5"), ({"hot": 0.9}, "hot"), ({"cold": 2}, "cold")]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"advantage\.{message}"):
        SCOPE(**settings)
