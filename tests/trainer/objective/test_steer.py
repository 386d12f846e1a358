"""STEER: weights from changes, and changes against finite differences of the entropy (specification 5)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from handmade import HERE, handmade
from testbench import CONTEXT, Bench, Toy, off_policy, plain, policy

from trainer.contract.settings import ConfigError
from trainer.loop import with_advantages
from trainer.metrics.accounting import TokenChange, exact, steer_published, steer_released
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.surrogates.unclipped import Unclipped
from trainer.objective.weights.steer import Steer
from trainer.policy.distribution_stats import entropy, sum_p2_logp_h
from trainer.update.gradient import with_old_terms


def weights(member: Steer, sizes: list[float]) -> list[float]:
    values: list[float] = member.weights(torch.tensor(sizes, dtype=torch.float64)).tolist()
    return values


def changes(member: Steer, p: list[float], advantages: list[float], **columns: list[list[float]]) -> list[float]:
    terms, batch = handmade([[math.log(value) for value in p]], [advantages], **columns)
    values: list[float] = member.change(batch, terms.detach(), HERE)[0].tolist()
    return values


def test_exponential_weights_fall_to_the_minimum_at_the_largest_change() -> None:
    assert weights(Steer(weight_min=0.8), [0.0, 0.1, 0.5]) == pytest.approx([1.0, 0.95635, 0.8], abs=5e-6)
    assert weights(Steer(), [0.0, 0.25, 1.0]) == pytest.approx([1.0, 0.7**0.25, 0.7], abs=1e-12)


def test_the_floor_keeps_weights_near_one_when_all_changes_are_small() -> None:
    member = Steer(weight_min=0.8, floor=0.02)
    assert weights(member, [0.0, 0.005, 0.01]) == pytest.approx([1.0, 0.94574, 0.89443], abs=5e-6)
    assert weights(member, [0.0, 0.1, 0.5]) == pytest.approx([1.0, 0.95635, 0.8], abs=5e-6)


def test_linear_weights() -> None:
    member = Steer(mode="linear")
    assert weights(member, [0.0, 0.1, 0.5]) == pytest.approx([1.2, 1.12, 0.8], abs=1e-12)
    assert weights(member, [0.3, 0.3]) == [1.0, 1.0]


@pytest.mark.parametrize("member", [Steer(), Steer(floor=0.02), Steer(estimator="released")])
def test_no_change_anywhere_weighs_one(member: Steer) -> None:
    assert weights(member, [0.0, 0.0]) == [1.0, 1.0]
    terms, batch = handmade([[-0.5, -2.0]], [[0.0, 0.0]], entropy=[[0.5, 1.0]])
    assert member(batch, terms.detach(), HERE).tolist() == [[1.0, 1.0]]


def test_a_typical_token_changes_nothing() -> None:
    # log p = -H.
    assert changes(Steer(), [0.25], [3.0], entropy=[[math.log(4)]]) == pytest.approx([0.0], abs=1e-12)


def test_published_change_by_hand() -> None:
    # r A (1 - p)^power (log p + H), with p = 0.5, log p = -0.693147, H = 1, A = 2, r = 1: 2 * 0.5 * 0.306853.
    assert changes(Steer(), [0.5], [2.0], entropy=[[1.0]]) == pytest.approx([0.306853], abs=1e-6)
    assert changes(Steer(one_minus_pi_power=2.0), [0.5], [2.0], entropy=[[1.0]]) == pytest.approx([0.153426], abs=1e-6)
    assert changes(Steer(one_minus_pi_power=0.0), [0.5], [2.0], entropy=[[1.0]]) == pytest.approx([0.613706], abs=1e-6)


def test_released_change_takes_the_entropy_of_the_sampling_policy() -> None:
    # p = 0.5, p_old = 0.4: r = 1.25.
    columns = {"entropy": [[1.0]], "old_entropy": [[0.5]], "old": [[math.log(0.4)]]}
    free = Steer(clip_indicator=False)
    assert changes(free, [0.5], [2.0], **columns) == pytest.approx([1.25 * 0.306853], abs=1e-6)
    released = replace(free, estimator="released")
    assert changes(released, [0.5], [2.0], **columns) == pytest.approx([1.25 * -0.193147], abs=1e-6)


def test_the_clip_indicator_spares_tokens_without_gradient() -> None:
    # Ratios 2 and 0.5 at thresholds 0.8 and 1.2: clipped where the advantage points outwards.
    old = [[math.log(0.2), math.log(0.2), math.log(0.8), math.log(0.8)]]
    columns = {"entropy": [[1.5] * 4], "old": old}
    p, advantages = [0.4] * 4, [1.0, -1.0, -1.0, 1.0]
    kept = [value != 0 for value in changes(Steer(), p, advantages, **columns)]
    assert kept == [False, True, False, True]
    assert all(changes(Steer(clip_indicator=False), p, advantages, **columns))
    terms, batch = handmade([[math.log(0.4)]], [[1.0]], old=[[math.log(0.2)]], entropy=[[1.5]])
    assert Steer().change(batch, terms.detach(), replace(HERE, surrogate=Unclipped())).item() != 0


def test_the_clip_indicator_knows_the_dual_clip() -> None:
    # Ratio 4 and A = -1: above a dual clip of 3 the token has no gradient, so it changes no entropy; below 10 it does.
    terms, batch = handmade([[math.log(0.4)]], [[-1.0]], old=[[math.log(0.1)]], entropy=[[1.5]])
    for dual, changed in ((3.0, False), (10.0, True), (None, True)):
        here = replace(HERE, surrogate=PPOClip(dual_clip=dual))
        assert (Steer().change(batch, terms.detach(), here).item() != 0) == changed


@pytest.mark.parametrize("vocabulary", [2, 5])
def test_exact_change_is_minus_the_derivative_of_entropy_along_the_gradient_step(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    for advantage in (1.5, -0.7):
        logits = torch.randn(1, vocabulary, generator=generator, dtype=torch.float64)
        p = logits.softmax(dim=-1)[0]
        sampled = int(torch.randint(vocabulary, (1,), generator=generator))
        terms, batch = handmade([[math.log(float(p[sampled]))]], [[advantage]], entropy=[[float(entropy(logits))]])
        extras = {"sum_p2_logp_h": sum_p2_logp_h(logits, torch.tensor([sampled]))[None]}
        member = Steer(estimator="exact")
        assert member.statistics == {"sum_p2_logp_h"}
        ours = member.change(batch, replace(terms.detach(), extras=extras), HERE).item()
        direction = advantage * (torch.eye(vocabulary, dtype=torch.float64)[sampled] - p)
        rate = (entropy(logits + 1e-6 * direction) - entropy(logits - 1e-6 * direction)) / 2e-6
        assert ours == pytest.approx(-float(rate), abs=1e-8)
        if vocabulary == 2:
            own = float(p[sampled])
            closed = 2 * advantage * own * (1 - own) * (math.log(own) + float(entropy(logits)))
            assert ours == pytest.approx(closed, abs=1e-12)


@pytest.mark.parametrize(
    ("member", "prediction"),
    [
        (Steer(), steer_published),
        (Steer(estimator="released", clip_indicator=False), steer_released),
        (Steer(estimator="exact"), exact),
    ],
)
def test_changes_are_those_of_the_entropy_accounting(member: Steer, prediction: object) -> None:
    model = Toy()
    batch = with_advantages(off_policy(model), plain(), CONTEXT)
    terms = policy(model).measure(batch, {"sum_p2_logp_h"})
    batch = with_old_terms(batch, terms)
    ours = member.change(batch, terms, HERE)[batch.mask]
    change = TokenChange(
        logprobs_before=terms.logprobs[batch.mask],
        logprobs_after=terms.logprobs[batch.mask],
        entropy_before=terms.entropy[batch.mask],
        entropy_after=terms.entropy[batch.mask],
        advantages=batch.advantages[batch.mask],
        sum_p2_logp_h=terms.extras["sum_p2_logp_h"][batch.mask],
    )
    torch.testing.assert_close(ours, -prediction(change), rtol=0, atol=1e-8)  # type: ignore[operator]


def test_certain_and_impossible_tokens_and_padding() -> None:
    terms, batch = handmade(
        [[0.0, -800.0, 0.0]],
        [[1.0, -1.0, float("nan")]],
        old=[[-800.0, 0.0, float("nan")]],
        entropy=[[0.0, 1e-300, float("nan")]],
        mask=[[True, True, False]],
    )
    for mode in ("exponential", "linear"):
        for estimator in ("published", "released"):
            values = Steer(mode=mode, estimator=estimator)(batch, terms.detach(), HERE)
            assert torch.isfinite(values).all()
            assert values[0, 2] == 1.0
    empty, batch = handmade([[0.0]], [[0.0]], mask=[[False]])
    assert Steer()(batch, empty.detach(), HERE).tolist() == [[1.0]]


def test_maxima_run_over_the_mini_batch_and_the_exact_estimator_trains() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    base = bench.step(plain(), batch)
    outcomes = [
        bench.step(plain(weight={"steer": Steer(estimator=name)}), batch) for name in ("published", "released", "exact")
    ]
    assert all(outcome.distance(base) > 1e-4 for outcome in outcomes)
    assert outcomes[0].distance(outcomes[2]) > 1e-4
    ones = Steer(estimator="exact", weight_min=1.0, clip_indicator=False)
    assert bench.step(plain(weight={"steer": ones}), batch).distance(base) == 0.0


@pytest.mark.parametrize(
    "setting",
    [{"weight_min": 0.0}, {"weight_min": 1.1}, {"floor": -0.1}, {"linear_low": 1.3}, {"one_minus_pi_power": -1.0}],
)
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"weight\.steer\.{key}={value}"):
        Steer(**setting)
