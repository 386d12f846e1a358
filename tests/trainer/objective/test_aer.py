"""AER, the reconstruction of specification 6.1: who gets the bonus, and when its coefficient moves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from testbench import CONTEXT, Bench, Toy, off_policy, plain

from trainer.batch.types import TokenBatch
from trainer.contract.settings import ConfigError
from trainer.objective.base import State
from trainer.objective.controllers.aer import AERController
from trainer.objective.regularizers.aer import AER, SHARE
from trainer.objective.regularizers.entropy_bonus import EntropyBonus


def graded(*accuracies: float) -> TokenBatch:
    """A batch of groups of four with these accuracies; shaped rewards say something else."""
    batch = off_policy(Toy(), groups=len(accuracies), group_size=4)
    raw = torch.tensor([float(member < 4 * accuracy) for accuracy in accuracies for member in range(4)])
    return replace(batch, raw_rewards=raw, rewards=1 - 0.5 * raw)


def shares(member: AER, batch: TokenBatch) -> list[float]:
    column = member.columns(batch, CONTEXT)[SHARE]
    assert torch.equal(column, column.reshape(-1, 4)[:, :1].expand(-1, 4).flatten())
    return column[::4].tolist()


def test_harder_prompts_get_more() -> None:
    batch = graded(0.0, 0.25, 0.5, 1.0)
    assert shares(AER(), batch) == [1.0, 0.75, 0.5, 0.0]
    assert shares(AER(accuracy_max=0.5), batch) == [1.0, 0.5, 0.0, 0.0]


def test_a_batch_of_unsolved_prompts_gets_the_plain_bonus() -> None:
    bench, batch = Bench(Toy()), graded(0.0, 0.0)
    ours = bench.step(plain(regularizer={"aer": AER(coef=0.3)}), batch)
    bonus = bench.step(plain(regularizer={"bonus": EntropyBonus(coef=0.3)}), batch)
    assert ours.size > 1e-3
    assert ours.distance(bonus) == 0.0


def test_prompts_at_the_threshold_get_no_entropy_gradient() -> None:
    # Equal shaped rewards within a group: no advantage, so all the gradient there is comes from the bonus.
    batch = graded(0.5, 0.75)
    silent = replace(batch, rewards=torch.ones_like(batch.rewards))
    assert Bench(Toy()).step(plain(regularizer={"aer": AER(coef=0.3, accuracy_max=0.5)}), silent).size == 0.0
    assert Bench(Toy()).step(plain(regularizer={"aer": AER(coef=0.3)}), silent).size > 1e-3


def drive(controller: AERController, entropies: list[float]) -> list[float]:
    """The coefficient before the first step and after each."""
    state: State = controller.initial_state()
    values = [controller.value(state, CONTEXT)]
    for entropy in entropies:
        state = controller.end_step(state, {"policy/entropy": 9.0, "policy/entropy_t1": entropy})
        values.append(controller.value(state, CONTEXT))
    return values


def test_the_coefficient_stays_at_the_target_and_moves_with_the_deviation() -> None:
    # H_0 = 1, so H* = 0.4; the first step itself lies 0.6 above, which 0 cannot follow.
    controller = AERController(gain=0.1)
    assert drive(controller, [1.0, 0.4, 0.3, 0.4, 0.6, 0.2]) == pytest.approx([0, 0, 0, 0.01, 0.01, 0, 0.02])


def test_the_target_is_anchored_to_the_first_step_only() -> None:
    controller = AERController(gain=1.0, target_frac=0.5)
    assert drive(controller, [0.2, 5.0, 0.05]) == pytest.approx([0, 0, 0, 0.05])


def test_a_coefficient_that_started_at_zero_reaches_the_loss() -> None:
    objective = plain(regularizer={"aer": AER()}, controller={"aer": AERController(target_frac=2.0, gain=1.0)})
    bench, batch = Bench(Toy()), graded(0.25, 0.5)
    first = bench.step(objective, batch)
    assert first.distance(bench.step(plain(), batch)) == 0.0
    state = objective.end_step(first.state, {"policy/entropy": 9.0, "policy/entropy_t1": 0.3})
    assert objective.controlled(state, CONTEXT).regularizer["aer"].coef == pytest.approx(0.3)
    second = bench.step(objective, batch, state)
    assert second.distance(bench.step(plain(regularizer={"aer": AER(coef=0.3)}), batch)) < 1e-12
    assert second.distance(first) > 1e-3


def test_both_halves_say_that_they_are_reconstructions() -> None:
    assert AER.about.status == "reconstructed"
    assert AERController.about.status == "reconstructed"


def test_settings_out_of_range_are_refused() -> None:
    for setting in ({"coef": -0.1}, {"coef": 100.0}, {"accuracy_max": 0.0}, {"accuracy_max": 1.5}):
        (key, value), *_ = setting.items()
        with pytest.raises(ConfigError, match=rf"regularizer\.aer\.{key}={value}"):
            AER(**setting)
    for key in ("target_frac", "gain", "start"):
        with pytest.raises(ConfigError, match=rf"controller\.aer\.{key}=-1"):
            AERController(**{key: -1.0})
