"""Coefficients along a line, a cosine, and the PAR schedules of specification 2.3, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from testbench import CONTEXT, Bench, Toy, off_policy, plain

from trainer.batch.types import Prompt
from trainer.contract.settings import ConfigError
from trainer.objective.base import Controller
from trainer.objective.controllers.cosine import Cosine
from trainer.objective.controllers.linear import Linear
from trainer.objective.controllers.par_entropy_guided import ParEntropyGuided
from trainer.objective.controllers.par_epoch import ParEpoch
from trainer.objective.controllers.par_stage import ParStage
from trainer.objective.rollouts.base import RolloutPlan
from trainer.objective.rollouts.dynamic import Dynamic
from trainer.objective.rollouts.standard import Standard
from trainer.objective.weights.sign import Sign
from trainer.rollout.sampler import PromptStream
from trainer.session.session import Session


def curve(controller: Controller, num_steps: int) -> list[float]:
    """The value of every step."""
    return [controller.value({}, replace(CONTEXT, step=step, num_steps=num_steps)) for step in range(num_steps)]


def test_linear_goes_from_start_to_end() -> None:
    assert curve(Linear(start=1.0, end=0.0), 5) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert curve(Linear(start=0.0, end=2.0, from_frac=0.25, until_frac=0.75), 5) == pytest.approx([0, 0, 1, 2, 2])


def test_cosine_is_slow_at_both_ends() -> None:
    # 1/2 (1 + cos(pi / 4)) = 0.853553.
    expected = [1, 0.853553, 0.5, 0.146447, 0]
    assert curve(Cosine(start=1.0, end=0.0), 5) == pytest.approx(expected, abs=1e-6)
    assert curve(Cosine(start=0.0, end=4.0, from_frac=0.5), 5) == pytest.approx([0, 0, 0, 2, 4])


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_an_empty_span_is_a_jump_and_one_step_is_the_start(kind: type[Linear] | type[Cosine]) -> None:
    assert curve(kind(start=3.0, end=5.0, from_frac=0.5, until_frac=0.5), 5) == [3, 3, 5, 5, 5]
    assert curve(kind(start=3.0, end=5.0), 1) == [3]
    assert kind(start=0.3, end=0.3).value({}, CONTEXT) == 0.3


@pytest.mark.parametrize("kind", [Linear, Cosine])
@pytest.mark.parametrize("span", [(0.6, 0.5), (-0.1, 0.5), (0.5, 1.5)])
def test_a_span_that_is_no_part_of_the_run_is_refused(
    kind: type[Linear] | type[Cosine], span: tuple[float, float]
) -> None:
    name = kind.__name__.lower()
    with pytest.raises(ConfigError, match=rf"controller\.{name}\.from_frac={span[0]}.*until_frac={span[1]}"):
        kind(from_frac=span[0], until_frac=span[1])


def test_a_schedule_drives_any_number_of_the_objective() -> None:
    low = Linear(target="surrogate.clip_low", start=0.1, end=0.3)
    positive = Cosine(target="weight.sign.positive", start=0.0, end=1.0)
    base = plain(weight={"sign": Sign()}, controller={"low": low, "positive": positive})
    middle = base.controlled(base.initial_state(), replace(CONTEXT, step=1, num_steps=3))
    assert middle.surrogate.clip_low == pytest.approx(0.2)
    assert middle.weight["sign"].positive == pytest.approx(0.5)


def test_stage_is_silent_for_half_the_run_and_then_rises_to_one() -> None:
    values = curve(ParStage(), 41)
    assert values[:21] == [0.0] * 21
    assert values[30] == pytest.approx(0.5)
    assert values[40] == 1.0
    assert curve(ParStage(silent_frac=0.0), 3) == pytest.approx([0, 0.5, 1])
    with pytest.raises(ConfigError, match=r"controller\.par_stage\.silent_frac=1\.0"):
        ParStage(silent_frac=1.0)


@pytest.mark.parametrize(
    ("num_epochs", "expected"),
    [(4, [0, 1 / 3, 2 / 3, 1, 1]), (2, [0, 1, 1]), (1, [1, 1])],  # the last: an unfinished pass after the whole ones
)
def test_epoch_rises_with_every_pass(num_epochs: int, expected: list[float]) -> None:
    contexts = [replace(CONTEXT, epoch=epoch, num_epochs=num_epochs) for epoch in range(len(expected))]
    assert [ParEpoch().value({}, context) for context in contexts] == pytest.approx(expected)
    assert math.isfinite(ParEpoch().value({}, contexts[0]))


@pytest.mark.parametrize("rollout", [Standard(prompts_per_step=4), Dynamic(prompts_per_step=4)])
def test_epochs_pass_at_the_pace_of_the_prompts_trained_on(rollout: RolloutPlan) -> None:
    # 16 prompts, 4 a step, 12 steps: three passes, the second from step 4 on. Dynamic sampling has drawn three times as
    # many by then: by those the run would be in its fourth pass, and the weight 1, at step 4 already.
    stream = PromptStream([Prompt(id=str(number), text="") for number in range(16)], seed=0)
    weights = []
    for step in range(12):
        stream.position = step * rollout.prompts_per_draw if isinstance(rollout, Dynamic) else step * 4
        session: Any = SimpleNamespace(
            run=SimpleNamespace(seed=0, steps=12, rollout=rollout), sampler=SimpleNamespace(stream=stream), step=step
        )
        session._epoch = lambda steps, session=session: Session._epoch(session, steps)
        context = Session.context(session)
        assert (context.epoch, context.num_epochs) == (step // 4, 3)
        weights.append(ParEpoch().value({}, context))
    assert weights == [0.0] * 4 + [0.5] * 4 + [1.0] * 4


def guided(controller: ParEntropyGuided, entropies: list[float]) -> list[float]:
    state, values = controller.initial_state(), []
    for entropy in entropies:
        values.append(controller.value(state, CONTEXT))
        state = controller.end_step(state, {"policy/entropy": entropy})
    return values


def test_entropy_guided_stays_at_zero_below_the_threshold() -> None:
    assert guided(ParEntropyGuided(), [0.1] * 30) == [0.0] * 30


def test_entropy_guided_reaches_one_after_twenty_steps_above_it_and_stays() -> None:
    values = guided(ParEntropyGuided(), [0.2] * 30)  # reaching the threshold counts as above
    assert values[19] == pytest.approx(0.95)
    assert values[20:] == [1.0] * 10


def test_entropy_guided_goes_back_and_forth() -> None:
    values = guided(ParEntropyGuided(step=0.25), [0.3, 0.3, 0.1, 0.3, 0.1, 0.1, 0.1])
    assert values == [0, 0.25, 0.5, 0.25, 0.5, 0.25, 0]
    with pytest.raises(ConfigError, match=r"controller\.par_entropy_guided\.step=1\.5"):
        ParEntropyGuided(step=1.5)


@pytest.mark.parametrize(("controller", "positive"), [(ParStage(), 0.0), (ParEpoch(), 0.0), (ParEntropyGuided(), 0.0)])
def test_the_first_step_trains_on_mistakes_only(controller: Controller, positive: float) -> None:
    bench, batch = Bench(Toy(), context=replace(CONTEXT, step=0)), off_policy(Toy())
    scheduled = bench.step(plain(weight={"sign": Sign()}, controller={"par": controller}), batch)
    fixed = bench.step(plain(weight={"sign": Sign(positive=positive)}), batch)
    assert scheduled.distance(fixed) == 0.0
    assert scheduled.distance(bench.step(plain(), batch)) > 1e-3
