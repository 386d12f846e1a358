"""Skywork's controller: the rules of specification 6.2, paper's and released, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import CONTEXT, Bench, ModelServices, Toy, off_policy, on_policy, plain, policy

from trainer.contract.settings import ConfigError
from trainer.objective.controllers.skywork import Skywork
from trainer.objective.regularizers.entropy_bonus import EntropyBonus


def drive(controller: Skywork, entropies: list[float]) -> list[float]:
    """The coefficient of every step, with rollouts of these entropies."""
    template = on_policy(Toy())
    state, values = controller.initial_state(), []
    for entropy in entropies:
        logprobs = torch.full_like(template.sampler_logprobs, -entropy)
        state = controller.begin_step(state, replace(template, sampler_logprobs=logprobs), CONTEXT)
        values.append(controller.value(state, CONTEXT))
        state = controller.end_step(state, {"policy/surprisal": entropy, "policy/entropy": 9.0})
    return values


PAPER = Skywork(step=0.25, target_entropy=0.5)
"""Exact in binary."""
RELEASED = replace(PAPER, gate="released")


@pytest.mark.parametrize("controller", [PAPER, RELEASED])
def test_below_the_target_it_climbs_by_a_step_up_to_the_maximum(controller: Skywork) -> None:
    assert drive(controller, [0.25] * 6) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("controller", [PAPER, RELEASED])
def test_above_the_target_it_stays_at_zero(controller: Skywork) -> None:
    assert drive(controller, [1.0] * 4) == [0.0] * 4


def test_the_papers_gate_answers_to_the_rollouts_it_is_used_on_and_the_released_one_a_step_later() -> None:
    entropies = [0.25, 0.25, 1.0, 0.25, 0.25]
    assert drive(PAPER, entropies) == [0.0, 0.25, 0.0, 0.25, 0.5]
    assert drive(RELEASED, entropies) == [0.0, 0.25, 0.5, 0.0, 0.5]


def test_equality_is_open_and_leaves_alone_on_paper_but_lowers_and_shuts_in_the_code() -> None:
    entropies = [0.25, 0.25, 0.5, 0.5, 0.25]
    assert drive(PAPER, entropies) == [0.0, 0.25, 0.5, 0.5, 0.5]
    assert drive(RELEASED, entropies) == [0.0, 0.25, 0.5, 0.0, 0.0]


def test_without_steps_it_is_a_fixed_bonus_while_entropy_is_below_the_target() -> None:
    fixed = replace(PAPER, step=0.0, start=0.125)
    assert drive(fixed, [0.25, 1.0, 0.25]) == [0.125, 0.0, 0.125]


def test_released_constants_reach_their_maximum_after_fifty_steps() -> None:
    scripts = Skywork(step=1e-4, coef_max=0.005, gate="released")
    values = drive(scripts, [0.1] * 60)
    assert values[49] == pytest.approx(0.0049)
    assert values[50:] == pytest.approx([0.005] * 10)


def test_exact_entropy_costs_a_pass_for_the_papers_gate_only() -> None:
    model = Toy()
    batch = on_policy(model)
    here = replace(CONTEXT, services=ModelServices(policy=policy(model)))
    entropy = float(policy(model).measure(batch).entropy[batch.mask].mean())
    for target, expected in ((entropy + 1e-6, True), (entropy - 1e-6, False)):
        exact = Skywork(estimate="exact", target_entropy=target)
        state = exact.begin_step(exact.initial_state(), batch, here)
        assert state["open"] is expected
        # The sampled log-probs say something else, and nobody asks them.
        assert exact.end_step(state, {"policy/entropy": 0.0, "policy/surprisal": 99.0})["coef"] == 0.005
    released = Skywork(estimate="exact", gate="released")
    assert released.begin_step(released.initial_state(), batch, CONTEXT) == released.initial_state()


def test_a_coefficient_that_started_at_zero_reaches_the_loss() -> None:
    # The trap of specification 6.2: entropy must be known while its coefficient is 0.
    objective = plain(
        regularizer={"entropy_bonus": EntropyBonus()},
        controller={"skywork": Skywork(step=0.25, target_entropy=99.0)},
    )
    bench, batch = Bench(Toy()), off_policy(Toy())
    first = bench.step(objective, batch)
    assert first.distance(bench.step(plain(), batch)) == 0.0
    entropy = float(first.batch.old_entropy[first.batch.mask].mean())
    state = objective.end_step(first.state, {"policy/surprisal": entropy})
    bonus = plain(regularizer={"entropy_bonus": EntropyBonus(coef=0.25)})
    assert bench.step(objective, batch, state).distance(bench.step(bonus, batch)) == 0.0


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"controller\.skywork\.step=-1"):
        Skywork(step=-1.0)
    with pytest.raises(ConfigError, match=r"controller\.skywork\.start=2.*coef_min=0\.0 and .*coef_max=1\.0"):
        Skywork(start=2.0)
