"""Positive-advantage reweighting: the rule of specification 2.3 and what it does to logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import CONTEXT, PAD, Bench, Toy, make_rollouts, off_policy, plain

from trainer.batch.collate import collate
from trainer.contract.settings import ConfigError
from trainer.objective.weights.sign import Sign
from trainer.policy.token_stats import token_stats


def weights(sign: Sign, advantages: list[float]) -> list[float]:
    batch = collate(make_rollouts(groups=1, group_size=1), pad_id=PAD)
    return sign(replace(batch, advantages=torch.tensor([advantages])), None, CONTEXT)[0].tolist()


def test_rule() -> None:
    # w = lambda_+ where A > 0, lambda_- where A < 0, 1 where A = 0.
    assert weights(Sign(positive=0.25, negative=0.5), [2.0, -3.0, 0.0, 1e-9, -1e-9]) == [0.25, 0.5, 1.0, 0.25, 0.5]


def test_ones_change_nothing() -> None:
    assert weights(Sign(), [2.0, -3.0, 0.0]) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("positive", "negative"), [(0.0, 1.0), (1.0, 0.0), (0.5, 1.0), (0.3, 0.7)])
def test_loss_is_the_weighted_sum_of_both_halves_over_the_same_denominator(positive: float, negative: float) -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())

    def gradient(p: float, n: float) -> dict[str, torch.Tensor]:
        return bench.step(plain(weight={"sign": Sign(positive=p, negative=n)}), batch).gradient

    mixed, first, second = gradient(positive, negative), gradient(1.0, 0.0), gradient(0.0, 1.0)
    for name, value in mixed.items():
        # Weights are float32 numbers, so 0.3 is 0.3 to 1e-8.
        torch.testing.assert_close(value, positive * first[name] + negative * second[name], rtol=0, atol=1e-7)
        assert first[name].any()
        assert second[name].any()


def test_several_weights_multiply() -> None:
    bench, batch = Bench(Toy()), off_policy(Toy())
    both = {"one": Sign(positive=0.5, negative=0.25), "two": Sign(positive=0.25, negative=4.0)}
    product = {"sign": Sign(positive=0.125, negative=1.0)}
    expected, got = (bench.step(plain(weight=weight), batch) for weight in (product, both))
    assert got.distance(expected) == 0.0  # powers of two: exact


@pytest.mark.parametrize("advantage", [1.5, -1.5])
def test_descent_on_logits_sharpens_for_positive_and_flattens_for_negative(advantage: float) -> None:
    # dJ/dz_v = -pi_v A for an unsampled token, (1 - pi) A for the sampled one (specification 2.3).
    logits = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    logprobs = token_stats(torch.eye(1, dtype=torch.float64), logits.T, torch.tensor([0]))["logprobs"]
    (gradient,) = torch.autograd.grad((advantage * logprobs).sum(), logits)
    pi = logits.detach().softmax(dim=-1)[0].tolist()
    expected = [advantage * (1 - pi[0]), -advantage * pi[1], -advantage * pi[2]]
    assert gradient[0].tolist() == pytest.approx(expected, abs=1e-12)

    def entropy(z: torch.Tensor) -> float:
        return float(token_stats(torch.eye(1, dtype=torch.float64), z.T, torch.tensor([0]))["entropy"])

    change = entropy(logits.detach() + 0.1 * gradient) - entropy(logits.detach())
    assert change * advantage < 0


@pytest.mark.parametrize("setting", [{"positive": -0.1}, {"negative": -1.0}])
def test_negative_weights_are_refused(setting: dict[str, float]) -> None:
    (key, value), *_ = setting.items()
    with pytest.raises(ConfigError, match=rf"weight\.sign\.{key}={value}.*at least 0"):
        Sign(**setting)
