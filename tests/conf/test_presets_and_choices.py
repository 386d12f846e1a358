"""The command line wins: for every preset and every group that it says something of, a choice is as chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from sweeps.compose.compose import CONF, batch_composer, enable_plugins, groups
from sweeps.compose.presets import COMPONENTS
from trainer.contract.config import LIST_SLOTS

CHOICES = groups()
PRESETS = [(group, name) for group in ("method", "study", "factor") for name in CHOICES[group]]
Compose = Callable[..., Any]


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """What one cell of a sweep composes to, in the way sweeps do it; files are read once a choice."""
    import hydra

    enable_plugins()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="sweep"):
        loader = GlobalHydra.instance().hydra.config_loader
        made = batch_composer(loader, hydra.compose("config", return_hydra_config=True))
        yield lambda *overrides: next(iter(made([list(overrides)])))


def content(group: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / group / f"{name}.yaml").read_text()) or {}
    return found


def touched(group: str, name: str) -> dict[str, Any]:
    """Component groups of which a preset, or one that it stands on, sets values or chooses the member."""
    document = content(group, name)
    found = {key: value for key, value in document.items() if key in COMPONENTS}
    for entry in document.get("defaults") or ():
        if isinstance(entry, dict):
            found |= {key.removeprefix("override /"): {} for key in entry if key.startswith("override /")}
        elif entry != "_self_":
            base = entry.removesuffix("@_global_")
            found = touched(*base[1:].split("/", 1)) | found if base.startswith("/") else touched(group, base) | found
    return {key: value for key, value in found.items() if key in COMPONENTS}


def pairs() -> list[tuple[str, str, str, str]]:
    """(preset group, preset, group, choice): the last member of the group; of a list, none."""
    found = []
    for preset, name in PRESETS:
        for group in touched(preset, name):
            members = CHOICES[group]
            choice = "[]" if group in LIST_SLOTS else members[-1]
            found.append((preset, name, group, choice))
    return found


PAIRS = pairs()


def test_there_is_something_to_look_at() -> None:
    assert len(PAIRS) > 80 and {group for _, _, group, _ in PAIRS} >= {"surrogate", "weight", "evaluation", "optim"}


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "name"), PRESETS, ids=["=".join(pair) for pair in PRESETS])
def test_a_group_that_is_chosen_is_as_chosen(compose: Compose, preset: str, name: str) -> None:
    for *at, group, choice in PAIRS:
        if at == [preset, name]:
            alone, beside = compose(f"{group}={choice}"), compose(f"{preset}={name}", f"{group}={choice}")
            assert OmegaConf.to_container(beside.config[group]) == OmegaConf.to_container(alone.config[group])
            said = " ".join(beside.left_out)
            assert (f"{group} was chosen" in said) == bool(group in content(preset, name) or group in said)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "name"), PRESETS, ids=["=".join(pair) for pair in PRESETS])
def test_a_value_that_is_given_is_as_given(compose: Compose, preset: str, name: str) -> None:
    document = content(preset, name)
    values = [("steps", document["steps"])] if "steps" in document else []
    for group, node in document.items():
        if group in COMPONENTS - {*LIST_SLOTS}:
            values += [(f"{group}.{key}", value) for key, value in node.items()]
    for key, value in values:
        other = 7 if isinstance(value, int | float) else None
        if isinstance(value, int | float) or value is None:
            assert OmegaConf.select(compose(f"{preset}={name}", f"{key}={other or 0.5}").config, key) == (other or 0.5)


def test_a_preset_is_whole_where_nothing_is_chosen(compose: Compose) -> None:
    siren = compose("method=siren")
    assert siren.config.surrogate.clip_high == 0.28 and siren.left_out == ()
    smoke = compose("study=smoke")
    assert (smoke.config.evaluation.every, smoke.config.steps) == (2, 2)


def test_what_is_left_out_is_said(compose: Compose) -> None:
    (said,) = compose("method=siren", "surrogate=gspo").left_out
    assert said == (
        "surrogate was chosen, so what method=siren says of surrogate.clip_low, surrogate.clip_high is left out"
    )


def test_a_clip_regime_is_two_values_and_wins_over_the_surrogate_that_it_is_for(compose: Compose) -> None:
    surrogate = compose("clip_regime=higher", "surrogate=cispo").config.surrogate
    assert (surrogate.clip_low, surrogate.clip_high) == (0.2, 0.28)
    assert compose("clip_regime=higher", "surrogate.clip_high=0.5").config.surrogate.clip_high == 0.5


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (("study=smoke", "evaluation=none"), "evaluation.every", 0),
        (("study=smoke", "evaluation=standard"), "evaluation.samples", 16),
        (("study=smoke", "steps=7"), "steps", 7),
        (("study=smoke", "evaluation=none", "evaluation.every=3"), "evaluation.every", 3),
        (("method=steer_released", "weight=[]"), "weight", {}),
        (("method=siren", "surrogate=gspo"), "surrogate.clip_high", 4e-4),
        (("method=siren", "surrogate=gspo", "surrogate.clip_high=0.1"), "surrogate.clip_high", 0.1),
        (("method=nsr_released", "regularizer=[]"), "regularizer", {}),
        (("method=small/gspo", "surrogate=ppo_clip"), "surrogate.clip_low", 0.2),
        (("factor=clip_high", "optim=adamw"), "optim.updates_per_rollout", 1),
        (("factor=positive_schedule", "controller=[]", "method=skywork_released"), "controller", {}),
        (("method=siren", "study=smoke", "rollout=dynamic"), "rollout.group_size", 16),
    ],
)
def test_the_last_word(compose: Compose, overrides: tuple[str, ...], key: str, value: object) -> None:
    found = OmegaConf.select(compose(*overrides).config, key)
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value
