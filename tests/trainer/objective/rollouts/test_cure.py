"""CURE: groups, branching points and what is context; specification 10."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from scripted_source import ScriptedSource

from trainer.batch.collate import collate
from trainer.batch.types import Rollout
from trainer.contract.settings import ConfigError
from trainer.objective.rollouts.cure import Cure, critical
from trainer.objective.rollouts.standard import Standard


def plan(**settings: Any) -> Cure:
    return Cure(**({"prompts_per_step": 2, "group_size": 8, "branches": 3} | settings))


def collected(plan: Any, source: ScriptedSource) -> list[Rollout]:
    rollouts: list[Rollout] = plan.collect(source, step=0, num_steps=4)
    return rollouts


def peak_at(place: int) -> Any:
    return lambda rollout: [float(t == place) for t in range(len(rollout.completion_ids))]


def test_a_group_is_first_responses_and_their_branches() -> None:
    rollouts = collected(plan(), ScriptedSource())
    assert Counter(rollout.group for rollout in rollouts) == {0: 8, 1: 8}
    assert [rollout.group for rollout in rollouts] == sorted(rollout.group for rollout in rollouts)
    for group in (0, 1):
        members = [rollout for rollout in rollouts if rollout.group == group]
        assert {rollout.prompt.id for rollout in members} == {f"p{group}"}
        assert {rollout.prompt_ids for rollout in members} == {(1, 2)}
        assert [rollout.num_context > 0 for rollout in members] == [False] * 2 + [True] * 6


def test_a_branch_goes_on_from_its_own_first_response() -> None:
    rollouts = collected(plan(top_k=1), ScriptedSource(entropy=peak_at(2)))
    for group in (0, 1):
        members = [rollout for rollout in rollouts if rollout.group == group]
        first, branches = members[:2], members[2:]
        prefixes = [branch.completion_ids[:2] for branch in branches]
        assert prefixes == [first[0].completion_ids[:2]] * 3 + [first[1].completion_ids[:2]] * 3
        # The token at the branching point itself is sampled again.
        assert all(
            b.completion_ids[2] not in (first[0].completion_ids[2], first[1].completion_ids[2]) for b in branches
        )


@pytest.mark.parametrize("place", [1, 2, 3])
def test_with_a_single_peak_and_top_k_one_the_branch_is_at_the_peak(place: int) -> None:
    rollouts = collected(plan(top_k=1), ScriptedSource(entropy=peak_at(place)))
    assert {rollout.num_context for rollout in rollouts} == {0, place}


def test_no_loss_falls_on_given_tokens() -> None:
    rollouts = collected(plan(top_k=1), ScriptedSource(entropy=peak_at(3)))
    batch = collate(rollouts, pad_id=0)
    assert batch.prompt_lengths.tolist() == [2] * 16
    for row, rollout in enumerate(rollouts):
        places = batch.mask[row].nonzero().squeeze(1).tolist()
        # Prompt of 2 tokens: completion token k is described at position k + 1.
        assert places == list(range(1 + rollout.num_context, 1 + len(rollout.completion_ids)))


def test_first_position_end_token_and_blanks_are_no_branching_points() -> None:
    # Tokens of the first responses: x, a blank, y, end. Only place 2 is left, whatever the entropies say.
    rollouts = collected(plan(top_k=20), ScriptedSource(length=3, blank=1))
    assert {rollout.num_context for rollout in rollouts} == {0, 2}


def test_without_a_valid_position_branches_start_at_the_prompt() -> None:
    rollouts = collected(plan(min_characters=3), ScriptedSource())
    assert {rollout.num_context for rollout in rollouts} == {0}
    assert Counter(rollout.group for rollout in rollouts) == {0: 8, 1: 8}


def test_the_point_is_drawn_among_the_top_and_differs_between_responses() -> None:
    falling = ScriptedSource(length=12, entropy=lambda r: [-float(t) for t in range(len(r.completion_ids))])
    rollouts = collected(plan(prompts_per_step=16, top_k=3), falling)
    assert {rollout.num_context for rollout in rollouts} == {0, 1, 2, 3}
    again = ScriptedSource(length=12, entropy=falling.entropy)
    assert collected(plan(prompts_per_step=16, top_k=3), again) == rollouts
    # Later choices of a run are other ones.
    points = [
        [r.num_context for r in taken] for taken in (rollouts, collected(plan(prompts_per_step=16, top_k=3), again))
    ]
    assert points[0] != points[1]


def test_random_points_need_no_entropies_and_go_everywhere() -> None:
    source = ScriptedSource(length=6, entropy=peak_at(2))
    rollouts = collected(plan(prompts_per_step=16, top_k=1, choice="random"), source)
    assert source.measured == 0
    assert {rollout.num_context for rollout in rollouts} == {0, 1, 2, 3, 4, 5}


def test_entropies_are_asked_for_once_and_for_the_first_responses_only() -> None:
    source = ScriptedSource()
    collected(plan(), source)
    assert source.measured == 4
    assert [(call["prompts"], call["samples"]) for call in source.calls] == [(2, 2), (4, 3)]


def test_no_branches_is_the_standard_plan() -> None:
    ours, standard = ScriptedSource(), ScriptedSource()
    settings = {"prompts_per_step": 2, "group_size": 4, "temperature": 0.7, "max_tokens": 9}
    assert collected(Cure(**settings, branches=0), ours) == collected(Standard(**settings), standard)
    assert (ours.calls, ours.measured) == (standard.calls, 0)


def test_dynamic_sampling_filters_whole_groups() -> None:
    source = ScriptedSource(rewards=lambda number: (0.0, 1.0) if number in (1, 3) else (0.0,))
    rollouts = collected(plan(keep="signal", oversampling=1.0), source)
    assert list(dict.fromkeys(rollout.prompt.id for rollout in rollouts)) == ["p1", "p3"]
    assert Counter(rollout.group for rollout in rollouts) == {0: 8, 1: 8}


def test_critical_positions_by_hand() -> None:
    # Highest first, ties to the earlier one; position 0 was left out before.
    assert critical([1, 2, 3, 4, 5], [9.0, 0.1, 0.7, 0.7, 0.0, 0.9], 3) == [5, 2, 3]
    assert critical([], [9.0], 3) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"group_size": 10}, "rollout.group_size=10 cannot be used.*give a multiple of 4"),
        ({"branches": -1}, "rollout.branches=-1"),
        ({"top_k": 0}, "rollout.top_k=0"),
        ({"min_characters": 0}, "rollout.min_characters=0"),
        ({"oversampling": 0.5}, "rollout.oversampling=0.5"),
        ({"max_tokens": 0}, "rollout.max_tokens=0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan(**settings)
