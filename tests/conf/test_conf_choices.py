"""Every file under conf/ composes, and says nothing that its dataclass says already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from composed import composed
from omegaconf import OmegaConf

from sweeps.compose.components import unknown_keys
from sweeps.compose.compose import CONF, Composed, compose_batch, groups
from sweeps.grid.cells import cells, resolve, resolve_all
from trainer.contract.component_source import component_defaults
from trainer.contract.config import LIST_SLOTS
from trainer.contract.identity import identity

PLAIN = {"factor", "study", "method", "clip_regime"}
"""Groups of presets: several components, or none."""

CHOICES = [(group, name) for group, names in groups().items() for name in names]
COMPONENTS = [path for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name not in {*PLAIN, "hydra", "claim"}]


def one(group: str, name: str) -> list[str]:
    return [f"{group}=[{name}]" if group in LIST_SLOTS else f"{group}={name}"]


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=[f"{group}-{name}" for group, name in CHOICES])
def test_every_choice_composes_and_has_no_unknown_key(group: str, name: str) -> None:
    config = resolve(composed(one(group, name)))
    assert list(unknown_keys(config)) == []


SCALED_DOWN = [f"small/{path.stem}" for path in sorted(CONF.glob("method/small/*.yaml"))]
"""Presets whose constants are made for the embedded scale."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALED_DOWN)
def test_a_scaled_down_preset_is_the_paper_s_with_other_constants(name: str) -> None:
    small, paper = (resolve(composed([f"method={choice}"])) for choice in (name, name.removeprefix("small/")))
    assert list(unknown_keys(small)) == []
    assert small["method"] == name and identity(small) != identity(paper)
    for slot in (key for key, node in small.items() if isinstance(node, dict)):
        assert str(targets(small[slot])) == str(targets(paper[slot])), slot


@pytest.mark.parametrize(
    "overrides", [["reduction=constant"], ["method=dr_grpo"], ["method=siren"], ["shaping=overlong"]]
)
def test_a_constant_that_is_the_budget_follows_it(overrides: list[str]) -> None:
    config = resolve(composed([*overrides, "rollout.max_tokens=77"]))
    slot, key = ("shaping", "max_tokens") if "shaping" in overrides[0] else ("reduction", "length")
    assert config[slot][key] == 77


@pytest.mark.parametrize("path", COMPONENTS, ids=[f"{path.parent.name}-{path.stem}" for path in COMPONENTS])
def test_a_component_names_its_class_and_states_only_what_differs(path: Path) -> None:
    stated: dict[str, Any] = yaml.safe_load(path.read_text())
    if "defaults" in stated:  # a variant of another file of its group
        return
    defaults = component_defaults(stated.pop("_target_"))
    repeated = [key for key, value in stated.items() if defaults[key] == value and type(defaults[key]) is type(value)]
    assert repeated == []


@pytest.mark.parametrize("slot", [slot for slot in LIST_SLOTS if groups().get(slot)])
def test_members_of_a_list_slot_stand_under_their_own_name(slot: str) -> None:
    names = groups()[slot]
    chosen = composed([f"{slot}=[{','.join(names)}]"])[slot]
    assert sorted(chosen) == names


def test_defaults_come_from_the_dataclass_and_the_command_line_wins() -> None:
    config = composed(["optim.lr=0.5"])
    assert config.optim.lr == 0.5
    assert config.optim.max_grad_norm == component_defaults("trainer.contract.config.OptimConfig")["max_grad_norm"]


@pytest.mark.parametrize("name", groups()["method"])
def test_a_preset_carries_its_name_and_a_comment(name: str) -> None:
    assert composed([f"method={name}"]).method == name
    assert (CONF / "method" / f"{name}.yaml").read_text().splitlines()[1].startswith("# ")


NO_PAPER = {"entropy_bonus", "polaris", "temperature_schedule"}
"""Presets that are common practice, and one of a report without a number."""


@pytest.mark.parametrize("name", [name for name in groups()["method"] if "/" not in name])
def test_a_preset_names_its_paper_in_its_first_line(name: str) -> None:
    # Acronyms stand for several papers each (BAPO, DCPO, ASPO, AEPO, NSR, ...), numbers for one.
    first = (CONF / "method" / f"{name}.yaml").read_text().splitlines()[1]
    assert bool(re.search(r"arXiv \d{4}\.\d{5}", first)) == (name not in NO_PAPER)


def targets(node: Any) -> Any:
    """The components of a slot without their settings."""
    if "_target_" in node:
        return node["_target_"]
    return {name: targets(member) for name, member in node.items() if isinstance(member, dict)}


PAPERS = [name for name in groups()["method"] if "/" not in name]
ON_POLICY = {"lp_reg"}
"""Presets whose paper has a clip of its own and one update per rollout: the clip is there for who takes more."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_no_preset_sets_a_clip_that_its_number_of_updates_makes_inert(name: str) -> None:
    ours, plain = (resolve(composed([f"method={choice}"])) for choice in (name, "grpo"))
    changed = {
        key for key, value in ours["surrogate"].items() if value is not None and value != plain["surrogate"].get(key)
    }
    clips = changed & {"clip_low", "clip_high", "dual_clip"}
    updates = ours["optim"]["updates_per_rollout"] * ours["optim"]["epochs"]
    assert updates > 1 or not clips or name in ON_POLICY


UPDATES = {"siren": 16, "steer": 16, "qae": 16, "forking_tokens": 16, "cure": 16, "dapo": 16, "flowrl": 16} | {
    **dict.fromkeys(("dph_alpha", "dph_forward", "dph_js"), 2),
    **dict.fromkeys(("nsr", "psr", "w_reinforce", "calibrl", "gspo", "rep_exp"), 4),
    **dict.fromkeys(("clip_cov", "kl_cov"), 8),
}
"""Rollout batch over mini-batch of the papers (specification 1.2, 1.4, 3, 4, 5, 7, 9, 10, 13.1, 14.3, 14.4)."""


@pytest.mark.parametrize("name", UPDATES)
def test_a_preset_makes_as_many_updates_as_its_paper(name: str) -> None:
    chosen = [name, f"{name}_released"] if f"{name}_released" in PAPERS else [name]
    assert {resolve(composed([f"method={one}"]))["optim"]["updates_per_rollout"] for one in chosen} == {UPDATES[name]}


OTHER_TASK = {"rlcr"}
"""Presets that read of a response what the embedded task does not ask for."""


def test_the_factor_of_methods_has_every_published_preset_once_at_the_embedded_scale() -> None:
    params = yaml.safe_load((CONF / "factor" / "method.yaml").read_text())["hydra"]["sweeper"]["params"]
    listed = params["method"].split(",")
    scaled = {path.stem for path in CONF.glob("method/small/*.yaml")}
    published = [name for name in PAPERS if not name.endswith("_released") and name not in OTHER_TASK]
    expected = {f"small/{name}" if name in scaled else name for name in published}
    assert len(listed) == len(set(listed))
    assert set(listed) == expected, "conf/factor/method.yaml and conf/method/ differ: list a new preset there"
    assert listed[0] == "grpo"


FACTORS = groups()["factor"]


@pytest.mark.parametrize("name", FACTORS)
def test_every_hypothesis_can_come_out_true(name: str) -> None:
    hypothesis = yaml.safe_load((CONF / "factor" / f"{name}.yaml").read_text())["factor"]["hypothesis"]
    # Nothing moves at all only within a margin: without one no interval is ever narrow enough.
    assert (hypothesis["direction"] == "none") == ("margin" in hypothesis)
    assert hypothesis.get("margin", 1.0) > 0
    # Levels that differ in the temperature differ in the entropy at it before the first update.
    if name == "temperature":
        assert hypothesis["metric"] == "policy/entropy_t1"


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_is_complete(name: str) -> None:
    document = yaml.safe_load((CONF / "factor" / f"{name}.yaml").read_text())
    factor, params = document["factor"], document["hydra"]["sweeper"]["params"]
    assert factor["name"] == name
    assert {"key", "label", "unit", "ordered", "hypothesis"} <= set(factor)
    assert {"metric", "direction", "statement", "source"} <= set(factor["hypothesis"])
    assert factor["hypothesis"]["direction"] in ("increase", "decrease", "none")
    keys = list(params)  # what stands between these two is crossed with the factor
    assert (keys[0], keys[-1]) == (factor["key"], "seed")
    assert len(params["seed"].split(",")) >= 3


def factor_batch(name: str) -> list[list[str]]:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = yaml.safe_load((CONF / "factor" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    parsed = OverridesParser.create().parse_overrides(
        [*(f"{key}={value}" for key, value in params.items()), f"factor={name}"]
    )
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return [list(overrides) for overrides in batch]


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_gives_distinct_levels_and_its_hypothesis_speaks_of_them(name: str) -> None:
    batch = factor_batch(name)
    made = cells(
        resolve_all(
            Composed(config=composed(overrides), overrides=tuple(overrides))
            for overrides in batch
            if "seed=0" in overrides
        )
    )
    levels = [cell.level.name for cell in made]
    assert len(set(levels)) == len(levels) >= 2
    assert set(made[0].config["factor"]["hypothesis"].get("levels") or levels) <= set(levels)


def test_a_batch_composes_to_what_its_members_compose_to_alone() -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from sweeps.compose.compose import enable_plugins

    enable_plugins()
    batch = [
        ["factor=advantage_weights", "weight.sign={positive:1,negative:0}", "seed=1"],
        ["factor=advantage_weights", "weight.sign={positive:0.5,negative:1}", "seed=2", "optim.lr=0.1"],
        ["method=clip_higher", "optim.updates_per_rollout=2", "+optim.extra=1"],
        ["clip_regime=free", "optim.updates_per_rollout=2"],
        ["weight=[]", "seed=3"],
        ["weight=[sign]", "weight.sign.positive=0.3"],
    ]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="sweep"):
        loader = GlobalHydra.instance().hydra.config_loader
        master = hydra.compose("config", return_hydra_config=True)
        together = list(compose_batch(loader, master, batch))
    for overrides, member in zip(batch, together, strict=True):
        assert OmegaConf.to_container(member.config) == OmegaConf.to_container(composed(overrides))
