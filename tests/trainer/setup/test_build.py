"""From a resolved configuration to instances: what is accepted, and one sentence for what is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from composed import composed
from omegaconf import OmegaConf

from trainer.contract.components import build_component
from trainer.contract.config import OptimConfig
from trainer.contract.identity import signature
from trainer.contract.settings import ConfigError
from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.objective.surrogates.ppo_clip import PPOClip
from trainer.objective.weights.sign import Sign
from trainer.setup.build import build_run

PPO = "trainer.objective.surrogates.ppo_clip.PPOClip"
OPTIM = "trainer.contract.config.OptimConfig"


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    overrides = ["weight=[sign]", "regularizer=[entropy_bonus]", "engine=transformers"]
    return OmegaConf.to_container(composed(overrides), resolve=True)  # type: ignore[return-value]


def changed(config: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    node = config
    for name in parents:
        node = node[name]
    node[last] = value
    return config


def refused(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build_run(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_default_configuration_builds(default: dict[str, Any]) -> None:
    run = build_run(default)
    assert (run.seed, run.steps, run.signature) == (default["seed"], default["steps"], signature(default))
    assert run.objective.surrogate == PPOClip()
    assert run.objective.weight == {"sign": Sign()}
    assert run.objective.regularizer == {"entropy_bonus": EntropyBonus()}
    assert run.optim == OptimConfig(betas=(0.9, 0.95))
    paths = [path for path, _ in run.objective.components()]
    assert paths == ["shaping", "advantage", "surrogate", "reduction", "weight.sign", "regularizer.entropy_bonus"]


def test_whole_numbers_serve_as_floats_and_whole_floats_as_integers() -> None:
    optim = build_component({"_target_": OPTIM, "lr": 1, "warmup_steps": 3.0, "betas": [0, 0.5]}, "optim")
    assert (optim.lr, optim.warmup_steps, optim.betas) == (1.0, 3, (0.0, 0.5))
    assert [type(value) for value in (optim.lr, optim.warmup_steps, optim.betas[0])] == [float, int, float]


def test_null_is_accepted_only_where_it_means_something() -> None:
    assert build_component({"_target_": PPO, "clip_low": None, "clip_high": 1}, "surrogate").clip_low is None
    with pytest.raises(ConfigError, match=r"optim\.lr=None cannot be used: give a number"):
        build_component({"_target_": OPTIM, "lr": None}, "optim")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("optim.updates_per_rollout", True, "optim.updates_per_rollout=True cannot be used: give a whole number"),
        ("optim.updates_per_rollout", 1.5, "optim.updates_per_rollout=1.5 cannot be used: give a whole number"),
        ("optim.updates_per_rollout", "2", "optim.updates_per_rollout='2' cannot be used: give a whole number"),
        ("optim.lr", "1e-4", "optim.lr='1e-4' cannot be used: give a number"),
        ("optim.lr", True, "optim.lr=True cannot be used: give a number"),
        ("optim.lr", float("nan"), "optim.lr=nan cannot be used: give a finite number"),
        ("optim.lr", float("inf"), "optim.lr=inf cannot be used: give a finite number"),
        ("optim.betas", [0.9], "optim.betas=[0.9] cannot be used: 2 values are expected"),
        ("optim.betas", 0.9, "optim.betas=0.9 cannot be used: give a list, 'optim.betas=[0.9]'"),
        ("optim.betas", ["a", 0.9], "optim.betas[0]='a' cannot be used: give a number"),
        ("surrogate.clip_high", "wide", "surrogate.clip_high='wide' cannot be used: give a number, or null"),
        (
            "model.path",
            7,
            """model.path=7 cannot be used: give a text, which a number is in two kinds of quotes: model.path='"7"'""",
        ),
        ("model.trust_remote_code", 1, "model.trust_remote_code=1 cannot be used: give true or false"),
        ("tracking.tags", ["a"], "tracking.tags=['a'] cannot be used: give a mapping, 'tracking.tags={NAME: VALUE}'"),
        ("tracking.tags", {"a": 1}, "tracking.tags.a=1 cannot be used: give a text"),
        ("task.subset", "randomly", "task.subset='randomly' cannot be used: did you mean 'random'?"),
        ("weight.sign.positive", -1, "weight.sign.positive=-1.0 cannot be used: a weight is at least 0"),
        ("weight.sign.positiv", 1, "weight.sign.positiv is not a setting of Sign: did you mean 'positive'?"),
        ("surrogate.clip_hihg", 1, "surrogate.clip_hihg is not a setting of PPOClip: did you mean 'clip_high'?"),
        ("shaping.lenght", 1, "shaping.lenght is not a setting of NoShaping: there is nothing to set"),
        ("surogate", {}, "surogate is not a part of a configuration: did you mean 'surrogate'?"),
        ("seed", -1, "seed=-1 cannot be used: give a whole number, at least 0"),
        ("seed", "zero", "seed='zero' cannot be used: give a whole number, at least 0"),
        ("steps", 1.5, "steps=1.5 cannot be used: give a whole number, at least 0, at most 10000000"),
        ("steps", -2, "steps=-2 cannot be used: give a whole number, at least 0"),
        ("surrogate", {}, "surrogate has no _target_: give the import path of its component"),
        ("surrogate", None, "surrogate has no _target_"),
        ("weight", ["sign"], "weight=['sign'] cannot be used: give a mapping from names to components"),
        ("weight.sign", 1.0, "weight.sign has no _target_"),
    ],
)
def test_each_mistake_is_one_sentence(default: dict[str, Any], path: str, value: object, sentence: str) -> None:
    assert refused(changed(default, path, value)).startswith(sentence)


@pytest.mark.parametrize(
    ("slot", "target", "base"),
    [
        ("advantage", "trainer.objective.weights.sign.Sign", "Advantage"),
        ("surrogate", "trainer.objective.advantages.grpo.GRPO", "Surrogate"),
        ("reduction", "trainer.objective.shaping.none.NoShaping", "Reduction"),
        ("shaping", "trainer.objective.reductions.TokenMean", "Shaping"),
        ("rollout", "trainer.contract.config.OptimConfig", "RolloutPlan"),
        ("optim", "trainer.contract.config.ModelConfig", "OptimConfig"),
        ("evaluation", "trainer.contract.config.ModelConfig", "EvaluationConfig"),
        ("task", "trainer.contract.config.ModelConfig", "Task"),
        ("weight.sign", PPO, "Weight"),
        ("regularizer.entropy_bonus", "trainer.objective.weights.sign.Sign", "Regularizer"),
    ],
)
def test_a_component_in_the_wrong_group_is_refused(default: dict[str, Any], slot: str, target: str, base: str) -> None:
    sentence = refused(changed(default, slot, {"_target_": target}))
    assert (
        sentence == f"{slot}._target_={target.rpartition('.')[2]!r} cannot be used: {slot.split('.')[0]} takes a {base}"
    )


def test_a_missing_group_is_named(default: dict[str, Any]) -> None:
    config = {key: value for key, value in default.items() if key != "evaluation"}
    assert refused(config).startswith("evaluation=None cannot be used: it is missing from the configuration")


def test_a_null_list_slot_is_an_empty_one(default: dict[str, Any]) -> None:
    assert build_run(changed(default, "controller", None)).objective.controller == {}
