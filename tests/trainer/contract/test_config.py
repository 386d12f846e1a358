"""Identity, derived seeds, and the schema of components read from their source."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweeps.compose.compose import CONF
from trainer.contract.component_source import component_defaults
from trainer.contract.config import LIST_SLOTS, PLAIN_GROUPS, SINGLE_SLOTS, CheckpointConfig, ModelConfig, OptimConfig
from trainer.contract.identity import NOT_IDENTITY, group_signature, identity, signature
from trainer.contract.paths import ROOT
from trainer.contract.seeds import derive_seed
from trainer.contract.settings import ConfigError, filled, nearest

CONFIG: dict[str, Any] = {
    "seed": 0,
    "steps": 40,
    **{
        slot: {"_target_": f"trainer.{slot}", "value": 1.5}
        for slot in (*SINGLE_SLOTS, "model", "optim", "accounting", "hardware")
    },
    **{slot: {"name": {"value": 1.5}} for slot in LIST_SLOTS},
}


def targets() -> list[str]:
    """Every ``_target_`` of the project's own that a YAML under conf/ names."""

    def walk(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("_target_"), str):
                yield node["_target_"]
            for value in node.values():
                yield from walk(value)

    found = {target for path in CONF.rglob("*.yaml") for target in walk(yaml.safe_load(path.read_text()))}
    return sorted(target for target in found if target.startswith(("trainer.", "sweeps.")))


@pytest.mark.parametrize("key", sorted(set(CONFIG)))
def test_signature_changes_with_every_key_that_can_move_a_curve(key: str) -> None:
    changed = copy.deepcopy(CONFIG)
    changed[key] = 7 if key in ("seed", "steps") else changed[key] | {"other": 1}
    assert signature(changed) != signature(CONFIG)
    without = {name: value for name, value in CONFIG.items() if name != key}
    assert signature(without) != signature(CONFIG)


def test_every_part_of_a_run_is_in_its_identity_or_named_as_left_out() -> None:
    parts = {"seed", "steps", *SINGLE_SLOTS, *LIST_SLOTS, *PLAIN_GROUPS}
    assert parts & NOT_IDENTITY == {"checkpoint", "tracking"}


@pytest.mark.parametrize("key", sorted(NOT_IDENTITY))
def test_signature_does_not_change_with_what_cannot_move_a_curve(key: str) -> None:
    assert signature(CONFIG | {key: {"anything": [1, 2]}}) == signature(CONFIG)
    assert identity(CONFIG | {key: 1}) == identity(CONFIG)


def test_signature_depends_on_depth_and_value_and_not_on_order() -> None:
    assert signature(dict(reversed(CONFIG.items()))) == signature(CONFIG)
    deep = copy.deepcopy(CONFIG)
    deep["weight"]["name"]["value"] = 1.5000001
    assert signature(deep) != signature(CONFIG)
    assert signature(CONFIG | {"steps": "40"}) != signature(CONFIG)


def test_signature_is_twelve_digits_and_the_same_in_another_process() -> None:
    code = "import json, sys; from trainer.contract.identity import signature; print(signature(json.load(sys.stdin)))"
    ran = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(CONFIG), capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout.strip() == signature(CONFIG)
    assert len(signature(CONFIG)) == 12
    assert set(signature(CONFIG)) <= set("0123456789abcdef")


def test_group_signature_is_shared_by_seeds_and_by_nothing_else() -> None:
    assert group_signature(CONFIG | {"seed": 9}) == group_signature(CONFIG) != signature(CONFIG)
    assert group_signature(CONFIG | {"steps": 41}) != group_signature(CONFIG)


def test_a_number_that_is_none_cannot_be_signed() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        signature(CONFIG | {"steps": float("nan")})


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.text(max_size=4)), unique=True, max_size=40))
def test_derived_seeds_are_63_bits_and_all_different(parts: list[tuple[object, ...]]) -> None:
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seeds_are_fixed_for_ever_and_tell_parts_apart() -> None:
    # printf '0\x1f1\x1frollout' | sha256sum, first 16 digits, halved. Another rule would make old runs unrepeatable.
    assert derive_seed(0, 1, "rollout") == 8029252421249224561
    assert derive_seed(1, 23) != derive_seed(12, 3)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("clip_hihg", ["clip_low", "clip_high"], "did you mean 'clip_high'?"),
        ("positiv", ["positive", "negative"], "did you mean 'positive'?"),
        ("zzz", ["b", "a"], "choose one of a, b"),
        ("zzz", [], "there is nothing to set"),
    ],
)
def test_nearest_names_the_closest_or_all(name: str, options: list[str], expected: str) -> None:
    assert nearest(name, options) == expected


@pytest.mark.parametrize("target", targets())
def test_defaults_read_from_source_are_the_real_ones(target: str) -> None:
    module, _, name = target.rpartition(".")
    component = getattr(importlib.import_module(module), name)
    real: dict[str, object] = {}
    for field in dataclasses.fields(component):
        factory = field.default_factory
        real[field.name] = factory() if factory is not dataclasses.MISSING else field.default
    assert dataclasses.MISSING not in real.values(), f"every setting of {target} needs a default"
    assert json.loads(json.dumps(real)) == component_defaults(target)


def test_defaults_cannot_be_changed_by_who_reads_them() -> None:
    target = "trainer.contract.config.OptimConfig"
    component_defaults(target)["betas"].append(3)  # type: ignore[attr-defined]
    assert component_defaults(target)["betas"] == [0.9, 0.95]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("trainer.objective.weights.sing.Sign", "names no file of the project"),
        ("trainer.objective.weights.sign.Sing", r"no class in .*sign\.py: did you mean 'Sign'\?"),
        ("torch.nn.Linear", "names no file of the project"),
        ("os.system", "names no file of the project"),
        ("Sign", "names no file of the project"),
        ("", "names no file of the project"),
    ],
)
def test_targets_that_lead_nowhere_are_named(target: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        component_defaults(target)


def test_a_default_that_has_to_be_computed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "trainer"
    folder.mkdir()
    (folder / "odd_one.py").write_text("class Odd:\n    size: int = max(1, 2)\n    needed: float\n")
    monkeypatch.setattr("trainer.contract.component_source.ROOT", tmp_path)
    with pytest.raises(ConfigError, match=r"Odd\.size needs a literal default"):
        component_defaults("trainer.odd_one.Odd")


@pytest.mark.parametrize(
    ("cls", "setting"),
    [
        (OptimConfig, {"lr": -1.0}),
        (OptimConfig, {"warmup_steps": -1}),
        (OptimConfig, {"updates_per_rollout": 0}),
        (OptimConfig, {"epochs": 0}),
        (OptimConfig, {"max_grad_norm": -1.0}),
        (OptimConfig, {"betas": (0.9, 1.0)}),
        (OptimConfig, {"eps": 0.0}),
        (OptimConfig, {"weight_decay": -0.1}),
        (ModelConfig, {"dtype": "int8"}),
        (CheckpointConfig, {"every": 0}),
        (CheckpointConfig, {"keep": 0}),
    ],
)
def test_values_out_of_range_are_one_sentence_with_key_and_value(cls: type, setting: dict[str, object]) -> None:
    ((key, value),) = setting.items()
    group = cls.__name__.removesuffix("Config").lower()
    with pytest.raises(ConfigError) as caught:
        filled(cls, setting, group)
    assert str(caught.value).startswith(f"{group}.{key}={value!r} cannot be used: ")
    assert "\n" not in str(caught.value)


def test_number_of_updates_is_mini_batches_times_epochs() -> None:
    assert OptimConfig(updates_per_rollout=3, epochs=2).num_updates == 6
