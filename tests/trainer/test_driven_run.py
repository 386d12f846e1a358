"""Controllers of the run itself: the sampling temperature (POLARIS), the reference and the optimiser (ProRL)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from runs import MOVING, metrics, record, run_config, write_run
from testbench import CONTEXT
from whole_runs import preempted_once, trained

from trainer.engine.base import EnginePool
from trainer.loop import train_step
from trainer.objective.base import Controller
from trainer.objective.controllers.reference_reset import ReferenceReset
from trainer.objective.controllers.temperature_by_diversity import TemperatureByDiversity
from trainer.runtime.stopwatch import Stopwatch
from trainer.session.session import open_session
from trainer.setup.build import build_run
from trainer.setup.checks import problems

CONTROLLERS = "trainer.objective.controllers"
RISING = {
    "controller.rising._target_": f"{CONTROLLERS}.temperature_by_diversity.TemperatureByDiversity",
    "controller.rising.stage": 1,
    "controller.rising.increment": 0.25,
    "rollout.temperature": 0.75,
    "seed": 1,
}
RENEWING = MOVING | {
    "controller.renewing._target_": f"{CONTROLLERS}.reference_reset.ReferenceReset",
    "controller.renewing.window": 2,
    "controller.renewing.when": "always",
    "regularizer.kl_reference._target_": "trainer.objective.regularizers.kl_reference.KLReference",
    "regularizer.kl_reference.coef": 0.1,
}


@pytest.fixture(scope="module")
def engines() -> Iterator[EnginePool]:
    pool = EnginePool()
    yield pool
    pool.close()


def driven(controller: Controller, key: str, seen: Sequence[float | None]) -> list[float]:
    """The number of every step, and of the one after the last."""
    state, values = controller.initial_state(), []
    for value in seen:
        values.append(controller.value(state, CONTEXT))
        state = controller.end_step(state, {} if value is None else {key: value})
    return [*values, controller.value(state, CONTEXT)]


def test_the_temperature_goes_up_after_a_stage_less_diverse_than_the_first() -> None:
    rising = TemperatureByDiversity(stage=2, increment=0.25, temperature_max=1.375)
    # Stages: mean 0.5 (the level); 0.5, not below; 0.45; 0.3, of which an eighth is left to the ceiling; 0.2.
    seen = [0.6, 0.4, 0.7, 0.3, 0.5, 0.4, 0.3, 0.3, 0.2, 0.2]
    assert driven(rising, "diversity/ngram", seen) == [1.0] * 6 + [1.25] * 2 + [1.375] * 3


def test_a_step_without_any_ngram_is_left_out_and_a_temperature_above_the_ceiling_stays() -> None:
    rising = TemperatureByDiversity(stage=1, increment=0.25, temperature_max=0.5)
    assert driven(rising, "diversity/ngram", [0.5, None, 0.25]) == [1.0] * 4


def test_the_reference_is_renewed_when_a_windows_reward_is_no_better_than_the_best() -> None:
    renewing = ReferenceReset(window=2)
    # Windows: 0.25; 0.5, better; 0.5, as good: renewed at step 6, and the best forgotten; 0.125; 0.125: at step 10.
    seen = [0.0, 0.5, 0.5, 0.5, 0.25, 0.75, 0.0, 0.25, 0.125, 0.125]
    assert driven(renewing, "rollout/reward", seen) == [0] * 6 + [6] * 4 + [10]
    assert driven(ReferenceReset(window=2, when="always"), "rollout/reward", [0, 1, 2, 3]) == [0, 0, 2, 2, 4]


def test_rollouts_and_logits_have_the_temperature_that_the_controller_says(engines: EnginePool, tmp_path: Path) -> None:
    lines = metrics(trained(tmp_path, engines, MOVING | RISING))[:-1]
    expected = [0.75]
    for line in lines[:-1]:
        expected.append(expected[-1] + 0.25 * (line["diversity/ngram"] < lines[0]["diversity/ngram"]))
    assert [line["controller/rising"] for line in lines] == expected and expected[-1] > 0.75
    # The consistency check of sampler and trainer would notice two temperatures; so would the entropy at temperature 1.
    assert max(line["engine/logprob_gap_max"] for line in lines) < 1e-4
    assert [line["policy/entropy"] < line["policy/entropy_t1"] for line in lines] == [t < 1 for t in expected]


def test_the_reference_is_the_policy_at_the_last_renewal(engines: EnginePool, tmp_path: Path) -> None:
    folder = write_run(tmp_path, RENEWING)
    session = open_session(build_run(folder.config()), folder, engines)
    session.setup()
    initial = {name: value.clone() for name, value in session.policy.model.state_dict().items()}
    before = initial
    for step in range(3):
        if step == 2:
            before = {name: value.clone() for name, value in session.policy.model.state_dict().items()}
        train_step(session, Stopwatch())
        assert session.reference.policy is not None
        held = session.reference.policy.model.state_dict()
        assert all(torch.equal(held[name], value) for name, value in before.items()), step
        moments = [state["step"] for state in session.learner.optimizer.state.values()]
        assert set(map(float, moments)) == {[1.0, 2.0, 1.0][step]}, "the optimiser counts from the renewal"
    assert any(not torch.equal(before[name], initial[name]) for name in initial)


def test_a_run_goes_on_with_the_reference_that_it_had(engines: EnginePool, tmp_path: Path) -> None:
    # After step 2, the first one with the renewed reference.
    parts = preempted_once(3, tmp_path / "parts", engines, RENEWING | RISING)
    assert record(parts) == record(trained(tmp_path / "whole", engines, RENEWING | RISING))


def test_what_does_not_go_together_is_said() -> None:
    told = [found.message for found in problems(run_config(MOVING | RISING | {"rollout.temperature_end": 1.0}))]
    assert any("both move the temperature: set rollout.temperature_end=null" in message for message in told)
    alone = {key: value for key, value in RENEWING.items() if "kl_reference" not in key}
    told = [found.message for found in problems(run_config(alone))]
    assert any("no member looks at a reference" in message for message in told)
    servo = {"controller.entropic._target_": f"{CONTROLLERS}.entropic.EntroPIC"}
    servo |= {"weight.sign_balance._target_": "trainer.objective.weights.sign_balance.SignBalance"}
    told = [found.message for found in problems(run_config(RISING | servo))]
    assert any("EntroPIC answers" in message and "controller rising" in message for message in told)
