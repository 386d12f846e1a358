"""Weights by the probability of a token: Delightful policy gradients, advantage reweighting, Lopti."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from runs import run_config
from testbench import CONTEXT, Bench, Toy, on_policy, plain, rewarded

from trainer.batch.types import TokenBatch
from trainer.contract.config import OptimConfig
from trainer.objective.weights.advantage_reweighting import AdvantageReweighting
from trainer.objective.weights.delightful import Delightful
from trainer.objective.weights.lopti import Lopti
from trainer.setup.checks import problems


def sampled_at(p: float, advantage: float = 1.0) -> TokenBatch:
    batch = rewarded([1.0])
    logprobs = torch.full_like(batch.sampler_logprobs, p).log()
    return replace(batch, sampler_logprobs=logprobs, advantages=torch.full_like(logprobs, advantage))


@pytest.mark.parametrize(
    ("advantage", "p", "expected"), [(1, 0.01, 0.9901), (-1, 0.01, 0.0099), (1, 0.9, 0.5263), (-1, 0.9, 0.4737)]
)
def test_delight_by_hand(advantage: float, p: float, expected: float) -> None:
    """At temperature 1 the gate is 1 / (1 + p) for A = 1, and p / (1 + p) for A = -1."""
    assert float(Delightful()(sampled_at(p, advantage), None, CONTEXT)[0, 0]) == pytest.approx(expected, abs=1e-4)


def test_a_small_temperature_opens_or_shuts_the_gate() -> None:
    for advantage, expected in ((1.0, 1.0), (-1.0, 0.0), (0.0, 0.5)):
        weight = Delightful(temperature=0.01)(sampled_at(0.5, advantage), None, CONTEXT)
        assert float(weight[0, 0]) == pytest.approx(expected, abs=1e-6)


def test_advantage_reweighting_by_hand() -> None:
    for p, expected in ((1.0, 1.0), (0.5, 0.875), (0.25, 0.8125)):
        assert float(AdvantageReweighting(alpha=0.25)(sampled_at(p), None, CONTEXT)[0, 0]) == pytest.approx(expected)


def test_lopti_takes_unlikely_tokens_first_and_both_halves_are_the_whole() -> None:
    halves = [replace(CONTEXT, update=number, num_updates=4) for number in range(4)]
    for p, expected in ((0.25, [1, 1, 0, 0]), (0.5, [1, 1, 0, 0]), (0.75, [0, 0, 1, 1])):
        assert [float(Lopti()(sampled_at(p), None, here)[0, 0]) for here in halves] == expected


def test_the_two_updates_of_lopti_add_up_to_one_of_grpo() -> None:
    """With a learning rate of 0 the second update is at the weights of the first."""
    batch = on_policy(Toy())
    whole = Bench(Toy()).step(plain(), batch)
    parts = []
    for halves in (1, 2):
        optim = OptimConfig(lr=0.0, max_grad_norm=0.0, epochs=2, warmup_steps=0)
        bench = Bench(Toy(), optim=optim)
        weight = Lopti(threshold=0.3) if halves == 2 else Lopti(threshold=None)
        parts.append(bench.step(plain(weight={"lopti": weight}), batch))
    second_half = parts[1].gradient
    first = Bench(Toy(), context=replace(CONTEXT, num_updates=2)).step(
        plain(weight={"lopti": Lopti(threshold=0.3)}), batch
    )
    assert parts[0].distance(whole) < 1e-6
    summed = {name: value + first.gradient[name] for name, value in second_half.items()}
    assert max(float((summed[name] - whole.gradient[name]).abs().max()) for name in summed) < 1e-6
    assert parts[1].size > 1e-3 and first.size > 1e-3


def test_lopti_needs_an_even_number_of_epochs() -> None:
    lopti = {"weight.lopti._target_": "trainer.objective.weights.lopti.Lopti"}
    assert any("optim.epochs=1 weight Lopti does not see" in found.message for found in problems(run_config(lopti)))
    assert not any("Lopti" in found.message for found in problems(run_config(lopti | {"optim.epochs": 2})))
