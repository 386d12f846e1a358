"""KL-Cov: the selection and the identities of specification 3.4."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from handmade import HERE, gradient, handmade
from testbench import Bench, Toy, off_policy, on_policy, plain

from trainer.batch.types import TokenTerms
from trainer.contract.settings import ConfigError
from trainer.objective.surrogates.kl_cov import SELECTED, KLCov
from trainer.objective.surrogates.unclipped import Unclipped


def selected(surrogate: KLCov, logprobs: list[float], advantages: list[float]) -> list[bool]:
    terms, batch = handmade([logprobs], [advantages])
    (row,) = surrogate.prepare(batch, terms.detach(), HERE)[SELECTED].tolist()
    return list(row)


def test_the_token_of_largest_covariance_is_selected() -> None:
    # Cov = [1.2, 1.2, 0.7, 1.7].
    logprobs, advantages = [-0.1, -0.1, -2.0, -3.0], [1.0, 1.0, -1.0, -1.0]
    assert selected(KLCov(top_frac=0.25), logprobs, advantages) == [False, False, False, True]
    assert selected(KLCov(top_frac=1e-6), logprobs, advantages) == [False, False, False, True]  # at least one
    assert selected(KLCov(top_frac=0.75), logprobs, advantages) == [True, True, False, True]
    assert selected(KLCov(top_frac=0.0), logprobs, advantages) == [False] * 4


def test_selection_is_over_the_mini_batch_and_within_the_mask() -> None:
    terms, batch = handmade(
        [[-0.1, -0.1], [-2.0, -3.0]], [[1.0, 1.0], [-1.0, -1.0]], mask=[[True, True], [True, False]]
    )
    (column,) = KLCov(top_frac=0.34).prepare(batch, terms.detach(), HERE).values()
    # Without the last token the means are -0.7333 and 0.3333: Cov = 0.42, 0.42, 1.69.
    assert column.tolist() == [[False, False], [True, False]]


def test_the_penalty_is_the_absolute_log_ratio_of_the_selected() -> None:
    terms, batch = handmade([[-1.0, -1.0, -2.0]], [[1.0, -1.0, 0.0]], old=[[-1.5, -0.5, -1.7]])
    chosen = replace(batch, extras={SELECTED: torch.tensor([[False, True, True]])})
    loss = KLCov(coef=0.5)(terms, chosen).loss
    # -A r + 0.5 |l - old|: -1.648721; 0.606531 + 0.25; 0 + 0.15.
    assert loss[0].tolist() == pytest.approx([-1.648721, 0.856531, 0.15], abs=1e-6)
    # -A r + 0.5 sign(l - old).
    assert gradient(loss, terms)[0] == pytest.approx([-1.648721, 0.606531 - 0.5, -0.5], abs=1e-6)


def test_finite_differences() -> None:
    terms, batch = handmade([[-1.0, -1.0, -2.0]], [[1.0, -1.0, 0.3]], old=[[-1.5, -0.5, -1.7]])
    chosen = replace(batch, extras={SELECTED: torch.tensor([[True, True, False]])})
    assert torch.autograd.gradcheck(
        lambda logprobs: KLCov()(TokenTerms(logprobs=logprobs, entropy=terms.entropy), chosen).loss, terms.logprobs
    )


@pytest.mark.parametrize("setting", [{"top_frac": 0.0}, {"coef": 0.0}])
def test_without_penalty_it_is_the_plain_policy_gradient_bit_for_bit(setting: dict[str, float]) -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    base = bench.step(plain(surrogate=Unclipped()), batch)
    assert bench.step(plain(surrogate=KLCov(**setting)), batch).distance(base) == 0.0
    assert bench.step(plain(surrogate=KLCov(top_frac=0.2)), batch).distance(base) > 1e-3
    assert KLCov(**setting).silent_without_advantage
    assert not KLCov().silent_without_advantage


@pytest.mark.parametrize("tokens", [10**6, 20])
def test_the_first_update_is_the_plain_policy_gradient(tokens: int) -> None:
    # In one micro-batch the old terms are the pass itself; in several there is a second pass over the same weights.
    bench, batch = Bench(Toy(), micro_batch_tokens=tokens), on_policy(Toy())
    ours = bench.step(plain(surrogate=KLCov(top_frac=0.5)), batch)
    # Rows without advantage go along here, so sums run in another order; one pulled token would move 1e-3.
    assert ours.distance(bench.step(plain(surrogate=Unclipped()), batch)) < 1e-14


def test_noise_between_two_passes_is_no_reason_to_pull() -> None:
    terms, batch = handmade([[-1.0, -1.0]], [[0.0, 0.0]], old=[[-1.0 + 9e-6, -1.0 - 2e-5]])
    chosen = replace(batch, extras={SELECTED: torch.tensor([[True, True]])})
    assert gradient(KLCov()(terms, chosen).loss, terms) == [[0.0, 1.0]]


def test_a_row_without_advantage_is_still_pulled_back() -> None:
    model = Toy()
    batch = off_policy(model)
    silent = torch.where(batch.group == 0, torch.ones(()), batch.rewards)
    batch = replace(batch, rewards=silent, raw_rewards=silent)
    everything = Bench(model).step(plain(surrogate=KLCov(top_frac=1.0)), batch)
    spoiled = replace(batch, mask=batch.mask & (batch.group != 0)[:, None])
    without = Bench(model).step(plain(surrogate=KLCov(top_frac=1.0)), spoiled)
    # Scaled to equal denominators, the difference is the pull of the rows without advantage.
    ratio = batch.num_tokens / spoiled.num_tokens
    assert (
        max(float((everything.gradient[n] * ratio - without.gradient[n]).abs().max()) for n in without.gradient) > 1e-3
    )


@pytest.mark.parametrize("setting", [{"top_frac": -0.1}, {"top_frac": 1.5}, {"coef": -1.0}, {"dead_zone": -1.0}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"surrogate\.{key}={value}"):
        KLCov(**setting)
