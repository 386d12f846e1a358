"""A checkpoint in parts, one of every rank: together they are the whole one, and what fails in one fails in all."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from testbench import on_ranks
from torch import Tensor

from trainer.contract.files import OutOfSpace
from trainer.runtime.ranks import Ranks
from trainer.storage.checkpoint import load_latest, save
from trainer.storage.parts import Written, part_file, weight_files, write_index

SIGNATURE = "0123456789ab"
EMBED, HEAD, NORM = torch.arange(12.0).view(4, 3), torch.arange(5.0), torch.tensor([0.1, -0.0, float("nan")])


def save_in_two(folder: Path, step: int, second: Callable[[], dict[str, Tensor]], keep: int = 2) -> Sequence[Path]:
    """The first part has the embedding under two names, and the settings; the second has what ``second`` gives."""
    models: list[Callable[[], dict[str, Any]]] = [lambda: {"embed": EMBED, "tied": EMBED}, second]
    moments = [
        {"state": {0: {"mean": EMBED, "step": 3}, 1: {"mean": None}}, "groups": [{"lr": 0.5, "hook": None}]},
        {"state": {0: {"mean": None, "step": None}, 1: {"mean": NORM}}, "groups": [{"lr": None, "hook": None}]},
    ]

    def one(ranks: Ranks) -> Path:
        return save(
            folder,
            step,
            model_state=models[ranks.rank](),
            optimizer_state=moments[ranks.rank],
            state={"version": 7} if ranks.is_main else {},
            signature=SIGNATURE,
            keep=keep,
            tied=("tied",),
            described={"config.json": b"{}"} if ranks.is_main else None,
            ranks=ranks,
        )

    return on_ranks(2, one)


def rest() -> dict[str, Tensor]:
    return {"norm": NORM, "head": HEAD}


def test_parts_are_read_as_one_checkpoint(tmp_path: Path) -> None:
    first, second = save_in_two(tmp_path, 4, rest)
    assert first == second == tmp_path / "step-000004"
    assert {path.name for path in first.iterdir()} == {
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
        "optimizer-00001-of-00002.pt", "optimizer-00002-of-00002.pt", "state.json", "manifest.json", "config.json",
    }  # fmt: skip
    found = load_latest(tmp_path, SIGNATURE)
    assert found is not None and found.step == 4 and found.state == {"version": 7}
    assert found.model_state.keys() == {"embed", "tied", "norm", "head"}
    for name, tensor in {"embed": EMBED, "tied": EMBED, **rest()}.items():
        assert torch.equal(found.model_state[name].view(torch.int32), tensor.view(torch.int32)), name
    moments = found.optimizer_state
    assert torch.equal(moments["state"][0]["mean"], EMBED) and moments["state"][0]["step"] == 3
    assert torch.equal(moments["state"][1]["mean"].view(torch.int32), NORM.view(torch.int32))
    assert moments["groups"] == [{"lr": 0.5, "hook": None}]


def test_the_index_is_that_of_transformers(tmp_path: Path) -> None:
    path, _ = save_in_two(tmp_path, 4, rest)
    assert json.loads((path / "model.safetensors.index.json").read_text()) == {
        "metadata": {"total_size": 4 * (12 + 5 + 3)},
        "weight_map": {
            "embed": "model-00001-of-00002.safetensors",
            "head": "model-00002-of-00002.safetensors",
            "norm": "model-00002-of-00002.safetensors",
        },
    }
    assert weight_files([file.name for file in path.iterdir()]) == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    ]  # fmt: skip


def test_what_one_part_cannot_write_fails_in_all_and_leaves_no_trace(tmp_path: Path) -> None:
    save_in_two(tmp_path, 1, rest)

    class Full(dict[str, Tensor]):
        def items(self) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

    def failing(ranks: Ranks) -> str:
        given: dict[str, Tensor] = {"embed": EMBED} if ranks.is_main else Full()
        with pytest.raises(OutOfSpace) as raised:
            save(
                tmp_path,
                2,
                model_state=given,
                optimizer_state={},
                state={},
                signature=SIGNATURE,
                keep=1,
                ranks=ranks,
            )
        return str(raised.value)

    for said in on_ranks(2, failing):
        assert re.match(r"no space left to write .*step-000002", said)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    found = load_latest(tmp_path, SIGNATURE)
    assert found is not None and found.step == 1


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "optimizer-00001-of-00002.pt"])
@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_damage_of_one_part_is_noticed_and_the_one_before_is_used(tmp_path: Path, name: str, damage: str) -> None:
    save_in_two(tmp_path, 1, rest)
    file = save_in_two(tmp_path, 2, rest)[0] / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink() if damage == "missing" else file.write_bytes(data)
    found = load_latest(tmp_path, SIGNATURE)
    assert found is not None and found.step == 1


def test_old_parts_are_pruned_as_whole_ones_are(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_in_two(tmp_path, step, rest, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]


def test_a_rank_alone_has_the_plain_names() -> None:
    assert part_file("model.safetensors", Ranks()) == "model.safetensors" and Ranks().together(lambda: 3) == [3]
    assert part_file("optimizer.pt", Ranks(rank=1, world=12)) == "optimizer-00002-of-00012.pt"
    with pytest.raises(KeyError, match="absent"):
        Ranks().together(lambda: {}["absent"])


def test_an_index_is_written_only_for_several_files(tmp_path: Path) -> None:
    write_index(tmp_path, [Written(files={}, weights={"a": ("model.safetensors", 4)}, aliases={})])
    assert not list(tmp_path.iterdir())
