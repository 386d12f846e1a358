"""Dynamic sampling: what is kept, when it refills, when it gives up; specification 1.2."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_source import ScriptedSource

from trainer.batch.types import Rollout
from trainer.contract.settings import ConfigError
from trainer.objective.rollouts.dynamic import Dynamic
from trainer.objective.rollouts.standard import Standard

MIXED, CORRECT, INCORRECT = (1.0, 0.0, 1.0, 1.0), (1.0,) * 4, (0.0,) * 4


def plan(**settings: Any) -> Dynamic:
    return Dynamic(**({"prompts_per_step": 3, "group_size": 4, "oversampling": 1.0} | settings))


def collected(plan: Any, source: ScriptedSource, **where: int) -> list[Rollout]:
    return plan.collect(source, **({"step": 0, "num_steps": 4} | where))


def prompts(rollouts: list[Rollout]) -> list[str]:
    return list(dict.fromkeys(rollout.prompt.id for rollout in rollouts))


@pytest.mark.parametrize(
    ("rewards", "kept"), [(CORRECT, False), (INCORRECT, False), (MIXED, True), ((0.5,) * 4, False)]
)
def test_a_group_is_kept_if_its_rewards_differ(rewards: tuple[float, ...], kept: bool) -> None:
    source = ScriptedSource(rewards=lambda number: rewards if number == 0 else MIXED)
    assert ("p0" in prompts(collected(plan(), source))) == kept


def test_it_refills_in_draws_until_there_are_enough_and_takes_the_first() -> None:
    # Prompts 1, 2, 5, 7 and 8 have a signal: draws of three give 2, then 1 (enough).
    source = ScriptedSource(rewards=lambda number: MIXED if number in (1, 2, 5, 7, 8) else INCORRECT)
    rollouts = collected(plan(), source)
    assert prompts(rollouts) == ["p1", "p2", "p5"]
    assert [rollout.group for rollout in rollouts] == [0] * 4 + [1] * 4 + [2] * 4
    assert (source.position, len(source.calls)) == (6, 2)
    # The next step goes on where the last draw ended, not where the last kept prompt stood.
    assert prompts(collected(plan(prompts_per_step=2), source)) == ["p7", "p8"]


def test_what_is_over_is_thrown_away_in_whole_groups() -> None:
    source = ScriptedSource(rewards=lambda number: MIXED)
    rollouts = collected(plan(oversampling=2.5), source)
    assert prompts(rollouts) == ["p0", "p1", "p2"]
    assert len(rollouts) == 12
    assert source.position == 8  # ceil(2.5 * 3)


def test_nothing_is_compared_with_shaped_rewards_or_other_groups() -> None:
    # All of one group right and all of the next wrong: neither has a signal of its own.
    source = ScriptedSource(rewards=lambda number: MIXED if number > 5 else CORRECT if number % 2 else INCORRECT)
    assert prompts(collected(plan(), source)) == ["p6", "p7", "p8"]


def test_after_the_last_draw_the_run_stops_with_one_sentence() -> None:
    source = ScriptedSource(rewards=lambda number: MIXED if number == 4 else CORRECT)
    with pytest.raises(ConfigError) as caught:
        collected(plan(max_draws=3), source, step=7)
    assert str(caught.value) == (
        "dynamic sampling found 1 of the 3 prompts of step 7 with differing rewards in rollout.max_draws=3 draws of 3: "
        "allow more draws, lower rollout.prompts_per_step, train on other prompts, or set rollout.when_short=proceed"
    )
    assert len(source.calls) == 3


def test_or_it_proceeds_with_groups_that_have_no_signal() -> None:
    source = ScriptedSource(rewards=lambda number: MIXED if number == 4 else CORRECT)
    rollouts = collected(plan(max_draws=3, when_short="proceed"), source)
    assert prompts(rollouts) == ["p4", "p0", "p1"]
    assert [rollout.group for rollout in rollouts] == [0] * 4 + [1] * 4 + [2] * 4
    none = collected(plan(max_draws=2, when_short="proceed"), ScriptedSource(rewards=lambda number: CORRECT))
    assert prompts(none) == ["p0", "p1", "p2"]


def test_enough_in_the_last_draw_is_enough() -> None:
    source = ScriptedSource(rewards=lambda number: MIXED if number >= 6 else CORRECT)
    assert prompts(collected(plan(max_draws=3), source)) == ["p6", "p7", "p8"]


def test_groups_of_one_are_all_kept() -> None:
    source = ScriptedSource(rewards=lambda number: (0.0,))
    assert prompts(collected(plan(group_size=1), source)) == ["p0", "p1", "p2"]


def test_keeping_all_is_the_standard_plan() -> None:
    settings = {"prompts_per_step": 3, "group_size": 4, "temperature": 0.7, "max_tokens": 9}
    ours, standard = ScriptedSource(rewards=lambda _: INCORRECT), ScriptedSource(rewards=lambda _: INCORRECT)
    kept = collected(Dynamic(**settings, keep="all"), ours)
    assert kept == collected(Standard(**settings), standard)
    assert (ours.position, ours.calls) == (standard.position, standard.calls)


@pytest.mark.parametrize("settings", [{"oversampling": 0.9}, {"max_draws": 0}, {"group_size": 0}, {"temperature": 0.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"rollout\.{next(iter(settings))}="):
        plan(**settings)
