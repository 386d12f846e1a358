"""The sampling temperature of a step, and that every plan samples at it."""

from __future__ import annotations

import pytest
from scripted_source import ScriptedSource

from trainer.contract.settings import ConfigError
from trainer.objective.rollouts.base import RolloutPlan
from trainer.objective.rollouts.cure import Cure
from trainer.objective.rollouts.dynamic import Dynamic
from trainer.objective.rollouts.standard import Standard

PLANS = [Standard, Dynamic, Cure]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("linear", [1.2, 1.1, 1.0, 0.9, 0.8]),
        # 0.8 + 0.4 (1 + cos(pi p)) / 2 with cos 0, pi/4, pi/2, 3 pi/4, pi.
        ("cosine", [1.2, 1.141421, 1.0, 0.858579, 0.8]),
    ],
)
def test_by_hand(curve: str, expected: list[float]) -> None:
    plan = Standard(temperature=1.2, temperature_end=0.8, temperature_curve=curve)  # type: ignore[arg-type]
    assert [plan.temperature_at(step, 5) for step in range(5)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("curve", ["linear", "cosine"])
def test_it_is_constant_without_an_end_and_starts_at_the_start(curve: str) -> None:
    constant = Standard(temperature=0.7, temperature_curve=curve)  # type: ignore[arg-type]
    assert {constant.temperature_at(step, 9) for step in range(9)} == {0.7}
    plan = Standard(temperature=0.7, temperature_end=1.4, temperature_curve=curve)  # type: ignore[arg-type]
    assert plan.temperature_at(0, 1) == pytest.approx(0.7, abs=1e-12), "a run of one step has no end"


@pytest.mark.parametrize("kind", PLANS)
def test_every_plan_samples_at_the_temperature_of_the_step(kind: type[RolloutPlan]) -> None:
    plan = kind(prompts_per_step=2, group_size=4, temperature=1.0, temperature_end=2.0)
    source = ScriptedSource()
    plan.collect(source, step=3, num_steps=7)
    assert {call["temperature"] for call in source.calls} == {1.5}


@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("value", [0.0, -1.0, 101.0])
def test_a_temperature_that_cannot_be_is_refused(kind: type[RolloutPlan], value: float) -> None:
    with pytest.raises(ConfigError, match=rf"rollout\.temperature_end={value}"):
        kind(temperature_end=value)
