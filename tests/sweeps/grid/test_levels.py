"""Which level a cell belongs to, from its overrides alone."""

from __future__ import annotations

import pytest

from sweeps.compose.overrides import value_text
from sweeps.grid.levels import levels, swept_keys

CLIP = {"name": "clip_high", "key": "surrogate.clip_high"}
WEIGHTS = {
    "name": "advantage_weights",
    "key": "weight.sign",
    "labels": {"positive only": {"positive": 1, "negative": 0}},
}


def test_levels_are_counted_in_the_order_of_the_sweep_and_seeds_share_them() -> None:
    batch = [[f"surrogate.clip_high={clip}", f"seed={seed}"] for clip in ("0.8", "0.2") for seed in (0, 1)]
    found = levels(batch, CLIP)
    assert [(level.name, level.index) for level in found] == [("0.8", 0), ("0.8", 0), ("0.2", 1), ("0.2", 1)]


def test_a_factor_with_one_level_still_has_it() -> None:
    assert levels([["surrogate.clip_high=0.2", "seed=0"]], CLIP)[0].name == "0.2"


def test_a_pair_is_called_by_its_label_and_a_new_pair_by_its_numbers() -> None:
    batch = [["weight.sign={positive:1.0,negative:0}"], ["weight.sign={positive:0.3,negative:1}"]]
    assert [level.name for level in levels(batch, WEIGHTS)] == ["positive only", "positive 0.3, negative 1"]


def test_a_number_keeps_its_name_beside_a_label() -> None:
    factor = {"name": "data", "key": "task.num_prompts", "labels": {"4096 (all)": 4096}}
    found = levels([["task.num_prompts=512"], ["task.num_prompts=4096"]], factor)
    assert [(level.name, level.label) for level in found] == [("512", "512"), ("4096", "4096 (all)")]


def test_a_second_swept_key_joins_the_name_behind_the_factor() -> None:
    batch = [[f"optim.lr={lr}", f"surrogate.clip_high={clip}"] for lr in ("1e-4", "1e-3") for clip in ("0.2", "0.8")]
    assert [level.name for level in levels(batch, CLIP)] == [
        "0.2, lr 0.0001",
        "0.8, lr 0.0001",
        "0.2, lr 0.001",
        "0.8, lr 0.001",
    ]


def test_seeds_alone_are_one_level() -> None:
    found = levels([["seed=0", "optim.lr=1"], ["seed=1", "optim.lr=1"]], None)
    assert {(level.name, level.index) for level in found} == {("default", 0)}


def test_what_is_equal_everywhere_is_not_swept() -> None:
    assert swept_keys([["a=1", "b=2", "seed=0"], ["a=1", "b=3", "seed=1"]], None) == ["b"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.28, "0.28"), (1e-5, "1e-05"), (0.1234567, "0.1234567"), (1.0, "1"), (None, "null"), (True, "true"),
     ([], "none"), (["sign", "steer"], "sign+steer"), ({"positive": 1, "negative": 0.5}, "positive 1, negative 0.5")],
)  # fmt: skip
def test_values_are_short_and_exact(value: object, text: str) -> None:
    assert value_text(value) == text
