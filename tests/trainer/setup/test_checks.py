"""Combinations that mean nothing are refused, inert settings are named, in one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from composed import composed
from omegaconf import OmegaConf
from testbench import plain

from sweeps.compose.compose import groups
from sweeps.grid.cells import NOT_FROZEN
from trainer.contract.settings import ConfigError
from trainer.objective.base import Diagnostic
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.weights.forking import Forking
from trainer.objective.weights.sign import Sign
from trainer.setup.checks import problems


def found(overrides: Sequence[str] = (), **groups: object) -> list[Diagnostic]:
    plain: dict[str, Any] = OmegaConf.to_container(composed(overrides), resolve=True)  # type: ignore[assignment]
    listed = problems({key: value for key, value in plain.items() if key not in NOT_FROZEN} | groups)
    assert all("\n" not in problem.message for problem in listed)
    return listed


def test_more_than_one_update_is_nothing_to_remark_on() -> None:
    assert found(["optim.updates_per_rollout=4"]) == []
    assert found(["optim.epochs=2"]) == []


def test_the_default_has_nothing_to_remark_on() -> None:
    assert found() == []


def test_a_clip_threshold_at_one_update_is_a_warning_because_it_does_nothing() -> None:
    (problem,) = found(["surrogate.clip_high=0.28"])
    assert not problem.fatal
    assert problem.message.startswith("with optim.updates_per_rollout=1 the importance ratio is exactly 1")


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (["evaluation.temperature=0.6"], "of heldout, ood are of what is sampled from (temperature 0.6, top-p 1)"),
        (["evaluation.suite_sampling={ood: {top_p: 0.7}}"], "of ood are of what is sampled from (temperature 1, top-p"),
        (["evaluation=greedy"], None),
        (["evaluation.temperature=0.6", "evaluation.every=0"], None),
    ],
)
def test_calibration_of_a_distribution_that_is_not_the_models_is_remarked_on(
    sampling: list[str], words: str | None
) -> None:
    notes = found(["optim.updates_per_rollout=4", *sampling])
    assert len(notes) == (words is not None)
    assert not any(note.fatal or words not in note.message for note in notes if words)


def test_greedy_responses_are_one_a_problem() -> None:
    (problem,) = found(["optim.updates_per_rollout=4", "evaluation.temperature=0"])
    assert problem.fatal and "evaluation.samples=1 and evaluation.ks=[1]" in problem.message


@pytest.mark.parametrize(
    "factor",
    [
        {"name": "a", "key": "surrogate.clip_high"},
        {"name": "b", "key": "surrogate.clip_low"},
        {"name": "c", "key": "surrogate.dual_clip"},
        {"name": "d", "key": "clip_regime"},
    ],
)
def test_clipping_swept_with_one_update_is_refused(factor: dict[str, object]) -> None:
    (problem,) = found(factor=factor)
    assert problem.fatal
    assert problem.message.startswith(f"factor {factor['name']} varies {factor['key']}, but with ")
    assert problem.message.endswith("set optim.updates_per_rollout=2 or more")


@pytest.mark.parametrize("name", ["clip_high", "clip_low", "clip_regime"])
def test_the_shipped_clip_factors_take_enough_updates_and_are_refused_without(name: str) -> None:
    assert found([f"factor={name}"]) == []
    (problem,) = found([f"factor={name}", "optim.updates_per_rollout=1"])
    assert problem.fatal


def test_other_factors_with_one_update_are_only_warned() -> None:
    (problem,) = found(["factor=off_policy_updates", "surrogate.clip_high=0.28"])
    assert not problem.fatal


def test_more_updates_than_prompts_is_refused() -> None:
    (problem,) = found(["optim.updates_per_rollout=5", "rollout.prompts_per_step=4"])
    assert problem.fatal
    assert problem.message == (
        "optim.updates_per_rollout=5 needs at least that many prompts a step, "
        "but rollout.prompts_per_step=4: raise the one or lower the other"
    )
    assert found(["optim.updates_per_rollout=4", "rollout.prompts_per_step=4"]) == []


def test_a_group_of_one_leaves_nothing_to_compare() -> None:
    (problem,) = found(["rollout.group_size=1", "optim.updates_per_rollout=2"])
    assert problem.fatal
    assert "rollout.group_size=1" in problem.message


def test_a_surrogate_with_a_reduction_of_its_own_refuses_others(monkeypatch: pytest.MonkeyPatch) -> None:
    forced: ClassVar[str | None] = "SequenceMean"
    monkeypatch.setattr(PPOClip, "forced_reduction", forced)
    (problem,) = found(["optim.updates_per_rollout=2"])
    assert problem.fatal
    why = "surrogate PPOClip is defined with reduction SequenceMean only, not TokenMean"
    assert problem.message == f"{why}: choose reduction=sequence_mean"
    assert found(["optim.updates_per_rollout=2", "reduction=sequence_mean"]) == []


@pytest.mark.parametrize("target", ["", "coef", "regularizer.none.coef", "surrogate", "surrogate.x.clip_low", "weight"])
def test_a_controller_that_steers_nothing_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=f"target={target!r} is no number of this objective"):
        plain().with_value(target, 0.5)


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        ("weight.sign.positiv", "did you mean 'weight.sign.positive'?"),
        ("regularizer.entropy_bonus.coef", r"add regularizer=\[entropy_bonus\], or choose one of advantage.eps, "),
        ("weight.forking.renormalise", "did you mean 'weight.forking.frac'?"),  # no number
    ],
)
def test_the_refusal_of_a_target_says_what_to_do(target: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"target={target!r} is no number of this objective: {remedy}"):
        plain(weight={"sign": Sign(), "forking": Forking()}).with_value(target, 0.5)


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (["controller=[skywork]"], "regularizer=[entropy_bonus]"),
        (["controller=[aer]"], "regularizer=[aer]"),
        (["controller=[par_stage]"], "weight=[sign]"),
    ],
)
def test_a_controller_without_its_member_is_refused(overrides: list[str], missing: str) -> None:
    (problem,) = found(overrides)
    assert problem.fatal
    assert f"is no number of this objective: add {missing}, or " in problem.message
    assert found([*overrides, missing, "optim.updates_per_rollout=2"]) == []


def test_a_schedule_that_ends_out_of_range_is_refused_at_once() -> None:
    overrides = ["weight=[sign]", "controller=[linear]", "controller.linear.target=weight.sign.positive"]
    assert found([*overrides, "optim.updates_per_rollout=2"]) == []
    (problem,) = found([*overrides, "controller.linear.start=1", "controller.linear.end=-1"])
    assert problem.fatal
    assert problem.message == "weight.sign.positive=-1.0 cannot be used: a weight is at least 0"


def test_what_throws_nothing_away_raises_no_concern() -> None:
    for free in ("advantage.skip_all_correct=true", "advantage.alpha=0", "rollout.keep=all"):
        assert found(["advantage=arm", "rollout=dynamic", free, "optim.updates_per_rollout=2"]) == []


def test_two_controllers_of_one_number_are_refused() -> None:
    (problem,) = found(["regularizer=[entropy_bonus]", "controller=[linear,cosine]", "optim.updates_per_rollout=2"])
    assert problem.fatal
    assert problem.message == (
        "controllers cosine and linear both drive regularizer.entropy_bonus.coef: leave one of them"
    )


def test_gspo_takes_its_own_reduction_only() -> None:
    (problem,) = found(["surrogate=gspo", "optim.updates_per_rollout=2"])
    assert problem.fatal
    assert problem.message.endswith("SequenceMean only, not TokenMean: choose reduction=sequence_mean")
    assert found(["method=gspo"]) == []


def test_kl_cov_with_one_update_is_warned() -> None:
    assert found(["method=kl_cov"]) == []
    (problem,) = found(["method=kl_cov", "optim.updates_per_rollout=1"])
    assert not problem.fatal
    assert "the penalty of surrogate KLCov is 0" in problem.message


@pytest.mark.parametrize("updates", [1, 2])
def test_a_factor_of_clip_settings_with_a_surrogate_that_has_none_is_refused(updates: int) -> None:
    factor = {"name": "a", "key": "surrogate.clip_high"}
    problems = found(["surrogate=unclipped", f"optim.updates_per_rollout={updates}"], factor=factor)
    assert [problem.message for problem in problems if problem.fatal] == [
        "factor a varies surrogate.clip_high, but surrogate Unclipped clips nothing: choose surrogate=ppo_clip"
    ]


def test_other_settings_of_a_surrogate_without_thresholds_may_be_swept() -> None:
    assert found(["method=kl_cov"], factor={"name": "a", "key": "surrogate.coef"}) == []


def test_an_epoch_schedule_with_one_epoch_is_warned() -> None:
    (problem,) = found(["method=par_epoch", "steps=10", "optim.updates_per_rollout=2"])
    assert not problem.fatal
    assert "the run draws 320 and the task has 512, so the weight is 1 throughout" in problem.message
    assert found(["method=par_epoch", "optim.updates_per_rollout=2"]) == []


@pytest.mark.parametrize("name", groups()["method"])
def test_every_preset_can_run(name: str) -> None:
    assert [problem.message for problem in found([f"method={name}"]) if problem.fatal] == []


def test_a_value_is_put_in_place_without_touching_the_original() -> None:
    objective = plain(weight={"sign": Sign(), "other": Sign()})
    changed = objective.with_value("weight.sign.positive", 0.25).with_value("surrogate.clip_high", 0.9)
    assert changed.weight == {"sign": Sign(positive=0.25), "other": Sign()}
    assert changed.surrogate == PPOClip(clip_high=0.9)
    assert objective == plain(weight={"sign": Sign(), "other": Sign()})


def test_values_that_do_not_build_are_one_fatal_sentence() -> None:
    (problem,) = found(["surrogate.clip_low=2"])
    assert problem.fatal
    assert problem.message.startswith("surrogate.clip_low=2.0 cannot be used")


def test_a_model_path_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (problem,) = found([f"model.path={tmp_path}"])
    assert problem.fatal
    assert "holds no model" in problem.message
    (problem,) = found(["model.path=./no/such/folder"])
    assert "holds no model" in problem.message


ONE = "rollout.group_size=1"
CLIPS = "optim.updates_per_rollout=2"  # otherwise clipping is remarked on


@pytest.mark.parametrize(
    ("overrides", "fatal", "words"),
    [
        (["advantage=dr_grpo", ONE], True, "nothing to compare a response with, so advantages would be plain rewards"),
        (["advantage=rloo", ONE], True, "nothing to compare a response with, so advantages would be plain rewards"),
        (["advantage=arm", ONE], True, "nothing to compare a response with, so advantages would be plain rewards"),
        (["advantage=entropy_shaped", ONE], True, "nothing to compare a response with"),
        (["advantage=arm", "rollout=dynamic", CLIPS], False, "advantage ARM learns from groups whose rewards are all"),
        (
            ["shaping=apr", "rollout=dynamic", CLIPS],
            False,
            "shaping APR learns from groups whose rewards are all equal",
        ),
        (
            ["method=skywork", "rollout.temperature_end=0.7", CLIPS],
            False,
            "controller Skywork answers to the entropy at the step's own temperature, so it also follows the schedule",
        ),
        (
            ["method=par_entropy_guided", "rollout.temperature_end=0.7", CLIPS],
            False,
            "it also follows the schedule from 1.0 to 0.7: set rollout.temperature_end=null",
        ),
        (["advantage=qae", ONE], True, "every reward its own quantile, so all advantages are 0"),
        (["advantage=grpo_passk", ONE], True, "leaves no second best, so all advantages are 0"),
        (["advantage=passk", "rollout.group_size=4"], True, "advantage.k=4 and rollout.group_size=4 pass@k is 0 or 1"),
        (["advantage=passk", "shaping=overlong"], False, "advantage PassK asks only whether a response is correct"),
        (
            ["advantage=signed", "shaping=unlikeliness"],
            False,
            "advantage Signed asks only whether a response is correct",
        ),
        (["advantage=signed", "rollout=dynamic"], False, "advantage Signed learns from groups whose rewards are all"),
        (["shaping=unlikeliness", "rollout=dynamic"], False, "shaping Unlikeliness learns from groups whose rewards"),
        (["shaping=overlong", "shaping.max_tokens=100"], False, "punishes nothing that rollout.max_tokens=40 lets"),
        (["rollout=dynamic", ONE, "advantage=signed", "rollout.keep=all"], None, ""),
        (["rollout=cure", "rollout.min_characters=9"], False, "no token of this model has rollout.min_characters=9"),
        (["rollout=cure", "rollout.min_characters=1"], None, ""),
        (["rollout=cure", "rollout.group_size=10"], True, "rollout.group_size=10 cannot be used"),
        (["shaping=apr"], None, ""),
        (["shaping=overlong"], None, ""),
    ],
)
def test_remarks_of_advantages_shapings_and_rollouts(overrides: list[str], fatal: bool | None, words: str) -> None:
    problems = found([*overrides, CLIPS])
    assert [problem.fatal for problem in problems] == ([] if fatal is None else [fatal])
    assert all(words in problem.message for problem in problems)


def test_dynamic_sampling_of_groups_of_one_has_nothing_to_compare() -> None:
    fatal, remark = sorted(found(["rollout=dynamic", ONE, CLIPS]), key=lambda problem: not problem.fatal)
    assert fatal.fatal and fatal.message.startswith("rollout.group_size=1 leaves nothing to compare")
    assert remark.message.startswith("dynamic sampling has nothing to compare in groups of one")


def test_an_anchor_penalty_needs_a_task_that_says_where_the_answer_is(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    overrides = ["shaping=apr", "task=math", f"task.path={tmp_path / 'train.jsonl'}", "evaluation=none", CLIPS]
    (problem,) = found(overrides)
    assert problem.fatal
    assert problem.message.endswith("JsonlTask does not say: use task=countdown, or shaping=overlong")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([], "hardware.sharding=fsdp2 leaves no rank all weights, and the entropy ledger moves them all"),
        (
            ["accounting.ledger_every=0", "model.lora_rank=4"],
            "hardware.sharding=fsdp2 shares out what is trained, and with model.lora_rank=4 that is a small adapter",
        ),
        (["hardware.processes=1"], "hardware.sharding='fsdp2' cannot be used: one process has nobody to share"),
        (["accounting.ledger_every=0"], None),
        (["accounting.ledger_every=0", "hardware.sharding=fsdp2_offload"], None),
    ],
)
def test_sharded_weights_refuse_what_needs_all_of_them(overrides: list[str], sentence: str | None) -> None:
    sharded = ["optim.updates_per_rollout=2", "hardware.processes=2", "hardware.sharding=fsdp2"]
    problems = found([*sharded, *overrides])
    assert [problem.fatal for problem in problems] == [True] * (sentence is not None)
    assert not any(sentence not in problem.message for problem in problems if sentence)
