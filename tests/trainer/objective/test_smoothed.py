"""DCPO's smoothed advantage: this step's standardisation and the run's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from testbench import CONTEXT, Bench, ModelServices, Toy, off_policy, plain, policy, rewarded, unpacked

from trainer.batch.types import TokenBatch
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.advantages.smoothed import Smoothed
from trainer.objective.base import Context


def here(batch: TokenBatch, state: dict[str, Any]) -> Context:
    return replace(CONTEXT, state=state, services=ModelServices(policy=policy(Toy()), rollouts=unpacked(batch)))


def after(member: Smoothed, *steps: list[float]) -> dict[str, Any]:
    state = member.initial_state()
    for rewards in steps:
        batch = rewarded(rewards)
        state = member.begin_step(state, batch, here(batch, state))
    return state


def test_by_hand() -> None:
    member = Smoothed(eps=0.0)
    state = after(member, [1, 0, 0, 0])
    assert state == {"seen": {"p0": [1, 4, 1.0, 1.0]}}
    batch = rewarded([1, 1, 0, 0])
    # This step: mean 1/2, variance 1/3, so +-0.866025. Both: 3 of 8 correct, variance (3 - 9/8) / 7 = 0.267857, so
    # 0.625 / 0.517549 = 1.207615 and -0.724569. Half and half, the second time: 1.036820 and -0.795297.
    expected = [1.036820, 1.036820, -0.795297, -0.795297]
    assert member.in_run(batch, here(batch, state)).tolist() == pytest.approx(expected, abs=1e-6)
    # The third time 2/3 of one and 1/3 of the other, whichever is smaller in size.
    state = after(member, [1, 0, 0, 0], [0, 0, 0, 0])
    # All: 3 of 12, variance (3 - 9/12) / 11 = 0.204545: 0.75 / 0.452267 = 1.658312 and -0.552771.
    expected = [(2 * 0.866025 + 1.658312) / 3] * 2 + [-(0.866025 + 2 * 0.552771) / 3] * 2
    assert member.in_run(batch, here(batch, state)).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_group_of_equal_rewards_has_a_signal_if_the_prompt_had_others() -> None:
    member, batch = Smoothed(eps=0.0), rewarded([1, 1, 1, 1])
    # 5 of 8: variance (5 - 25/8) / 7 = 0.267857; 0.375 / 0.517549 = 0.724569, half of it.
    found = member.in_run(batch, here(batch, after(member, [1, 0, 0, 0])))
    assert found.tolist() == pytest.approx([0.362284] * 4, abs=1e-6)
    assert not member.in_run(batch, here(batch, after(member, [1, 1, 1, 1]))).any()


def test_the_first_time_it_is_grpo_bit_for_bit() -> None:
    batch = off_policy(Toy())
    ours, grpo = (Bench(Toy()).step(plain(advantage=kind), batch) for kind in (Smoothed(), GRPO()))
    assert ours.distance(grpo) == 0 and grpo.size > 0
    assert torch.equal(ours.batch.advantages, grpo.batch.advantages)  # type: ignore[arg-type]
