"""Components go by their class name in a run's identity: files may move, and no two classes of a slot share a name."""

from __future__ import annotations

import copy
import importlib
import pkgutil
from collections import Counter
from typing import Any

import pytest
import yaml
from runs import TARGETS, run_config

import trainer
from sweeps.compose.compose import CONF
from trainer.contract.component_source import component_defaults
from trainer.contract.config import LIST_SLOTS, PLAIN_GROUPS, SINGLE_SLOTS
from trainer.contract.identity import ADDED, group_signature, identity, one_rank_signature, signature
from trainer.setup.build import BASES


def moved(node: Any) -> Any:
    """The same configuration after every file has moved to another folder."""
    if isinstance(node, dict):
        return {
            key: f"trainer.moved.to.{value.rpartition('.')[2]}" if key == "_target_" else moved(value)
            for key, value in node.items()
        }
    return [moved(item) for item in node] if isinstance(node, list) else node


CONFIG = run_config({"regularizer.bonus._target_": "trainer.objective.regularizers.entropy_bonus.EntropyBonus"})


def test_a_file_that_moves_orphans_no_run() -> None:
    assert moved(CONFIG) != CONFIG
    assert signature(moved(CONFIG)) == signature(CONFIG)
    assert group_signature(moved(CONFIG)) == group_signature(CONFIG)
    assert "trainer." not in str(identity(CONFIG))


@pytest.mark.parametrize("slot", [*SINGLE_SLOTS, *PLAIN_GROUPS])
def test_another_class_in_a_slot_is_another_run(slot: str) -> None:
    other = copy.deepcopy(CONFIG)
    other[slot]["_target_"] += "Other"
    assert (signature(other) == signature(CONFIG)) == (slot in ("checkpoint", "tracking"))


@pytest.mark.parametrize("slot", [*SINGLE_SLOTS, *LIST_SLOTS, *PLAIN_GROUPS])
def test_no_two_classes_of_a_slot_share_a_name(slot: str) -> None:
    for module in pkgutil.walk_packages(trainer.__path__, "trainer."):
        if not module.name.endswith(("__main__", "vllm", "vllm_lockstep")):
            importlib.import_module(module.name)
    documents = [yaml.safe_load(path.read_text()) for path in sorted((CONF / slot).glob("*.yaml"))]
    paths = {str(document["_target_"]) for document in documents if document and "_target_" in document}
    if BASES[slot] is not object:
        paths |= {f"{kind.__module__}.{kind.__qualname__}" for kind in subclasses(BASES[slot])}
    assert paths
    twice = [name for name, count in Counter(path.rpartition(".")[2] for path in paths).items() if count > 1]
    assert twice == []


def subclasses(kind: type) -> set[type]:
    """Everything in the project that is made from ``kind``, and ``kind``."""
    below = {item for child in kind.__subclasses__() for item in subclasses(child)}
    return {item for item in below | {kind} if item.__module__.startswith("trainer.")}


@pytest.mark.parametrize("name", ADDED)
def test_a_setting_that_came_later_is_a_default_and_orphans_no_run(name: str) -> None:
    kinds = {path.rpartition(".")[2]: path for path in (*TARGETS.values(), *LATER)}
    defaults = component_defaults(kinds[name])
    assert ADDED[name].items() <= defaults.items()
    group = "accounting" if name == "AccountingConfig" else "task"
    node = {"_target_": kinds[name], **defaults}
    before = {key: value for key, value in node.items() if key not in ADDED[name]}
    assert signature(CONFIG | {group: node}) == signature(CONFIG | {group: before})
    for key, value in ADDED[name].items():
        other = value + 1 if isinstance(value, int) else "another"
        assert signature(CONFIG | {group: node | {key: other}}) != signature(CONFIG | {group: node})


LATER = (
    "trainer.tasks.jsonl.JsonlTask",
    "trainer.tasks.equations.EquationTask",
    "trainer.tasks.reasoning_gym.ReasoningGymTask",
)


def test_the_default_run_has_the_signature_that_it_had() -> None:
    # Of commit 09751a4, before there was any such setting.
    assert signature(run_config()) == "ec77e62f0955"


def test_ranks_are_another_run_that_goes_on_from_the_same_checkpoint() -> None:
    two = run_config({"hardware.processes": 2, "hardware.sharding": "fsdp2"})
    one = run_config()
    assert signature(two) != signature(one)
    assert one_rank_signature(two) == one_rank_signature(one) == signature(one)
    assert one_rank_signature(run_config({"hardware.processes": 2, "seed": 1})) != signature(one)
