"""Checkpoints: bit-equal, damage is detected and passed over, the last good one stays, a full disk loses nothing."""

import errno
import io
import json
import logging
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from disks import small_disk
from torch import Tensor, nn

from trainer.contract.files import OutOfSpace
from trainer.storage import checkpoint, parts
from trainer.storage.checkpoint import load_latest, save
from trainer.storage.manifest import MANIFEST

CONTENT = ("model.safetensors", "optimizer.pt", "state.json")
SIGNATURE = "0123456789ab"


class Tied(nn.Module):
    """Embedding and head share their weight, as small language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.embed(ids)))
        return logits


def learner(seed: int = 0) -> tuple[Tied, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = Tied()
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.95))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        ids = torch.arange(6) * (step + 1) % 11
        loss = nn.functional.cross_entropy(model(ids), (ids + 1) % 11)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def save_simple(folder: Path, step: int, *, signature: str = SIGNATURE, keep: int = 2) -> Path:
    weights = {"weight": torch.full((64,), float(step))}
    return save(
        folder, step, model_state=weights, optimizer_state={"step": step}, state={}, signature=signature, keep=keep
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = learner()
    train(model, optimizer, range(5))
    state = {"controller": {"entropy_coef": 0.1 + 0.2}, "position": [1, 2], "none": None, "largest": 2**62}
    weights = model.state_dict()
    save(
        tmp_path / "checkpoints",
        5,
        model_state=weights,
        optimizer_state=optimizer.state_dict(),
        state=state,
        signature=SIGNATURE,
        keep=1,
    )
    train(model, optimizer, range(5, 9))

    found = load_latest(tmp_path / "checkpoints", SIGNATURE)
    assert found is not None
    assert (found.step, found.state) == (5, state)
    assert set(found.model_state) == {"embed.weight", "head.weight", "norm.weight", "norm.bias"}
    assert found.model_state["head.weight"].data_ptr() == found.model_state["embed.weight"].data_ptr()
    other, other_optimizer = learner(seed=1)
    other.load_state_dict(found.model_state)
    other_optimizer.load_state_dict(found.optimizer_state)
    train(other, other_optimizer, range(5, 9))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    moments = zip(optimizer.state.values(), other_optimizer.state.values(), strict=True)
    assert all(torch.equal(mine[key], theirs[key]) for mine, theirs in moments for key in mine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_special_values_views_and_precisions_survive(tmp_path: Path, dtype: torch.dtype) -> None:
    base = torch.tensor([[-0.0, 1e-40, float("inf")], [float("nan"), 3.0, -2.5]]).to(dtype)
    given = {"whole": base, "transposed": base.t(), "row": base[1], "scalar": torch.tensor(7), "empty": torch.zeros(0)}
    save(tmp_path, 0, model_state=given, optimizer_state={}, state={}, signature=SIGNATURE, keep=1)
    found = load_latest(tmp_path, SIGNATURE)
    assert found is not None
    for name, tensor in given.items():
        read = found.model_state[name]
        assert read.dtype == tensor.dtype and read.shape == tensor.shape
        integers = {4: torch.int32, 2: torch.int16, 8: torch.int64}[tensor.element_size()]
        assert torch.equal(read.contiguous().view(integers), tensor.contiguous().view(integers)), name


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        model, optimizer = learner()
        train(model, optimizer, range(2))
        weights = dict(sorted(model.state_dict().items(), reverse=name == "b"))
        content: dict[str, Any] = {"model_state": weights, "optimizer_state": optimizer.state_dict(), "state": {"x": 1}}
        save(tmp_path / name, 2, **content, signature=SIGNATURE, keep=1)
    for file in (*CONTENT, MANIFEST):
        assert (tmp_path / "a/step-000002" / file).read_bytes() == (tmp_path / "b/step-000002" / file).read_bytes()


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "empty"])
@pytest.mark.parametrize("name", [*CONTENT, MANIFEST])
def test_damage_is_noticed_and_the_one_before_is_used(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_simple(tmp_path, 10)
    file = save_simple(tmp_path, 20) / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with caplog.at_level(logging.WARNING):
        found = load_latest(tmp_path, SIGNATURE)
    assert found is not None and found.step == 10
    assert "step-000020 is damaged" in caplog.text and name in caplog.text


def test_nothing_usable_is_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "never", SIGNATURE) is None
    (save_simple(tmp_path, 1) / MANIFEST).unlink()
    assert load_latest(tmp_path, SIGNATURE) is None


def test_a_half_written_folder_is_ignored_and_swept_away(tmp_path: Path) -> None:
    save_simple(tmp_path, 10)
    torn = tmp_path / ".tmp-step-000020"
    shutil.copytree(tmp_path / "step-000010", torn)
    found = load_latest(tmp_path, SIGNATURE)
    assert found is not None and found.step == 10
    save_simple(tmp_path, 20)
    assert names(tmp_path) == ["step-000010", "step-000020"]


def test_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    save_simple(tmp_path, 10, signature="aaaaaaaaaaaa")
    with pytest.raises(ValueError, match=r"aaaaaaaaaaaa.*bbbbbbbbbbbb"):
        load_latest(tmp_path, "bbbbbbbbbbbb")


def test_the_newest_are_kept_in_order_of_number_not_of_name(tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000):
        save_simple(tmp_path, step)
    assert names(tmp_path) == ["step-1000000", "step-999999"]
    found = load_latest(tmp_path, SIGNATURE)
    assert found is not None and found.step == 1_000_000


def test_a_damaged_checkpoint_takes_no_place_of_a_good_one(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save_simple(tmp_path, step, keep=3)
    (tmp_path / "step-000030" / MANIFEST).unlink()
    save_simple(tmp_path, 40, keep=2)
    assert names(tmp_path) == ["step-000020", "step-000040"]


def test_a_damaged_later_step_never_costs_the_good_earlier_one(tmp_path: Path) -> None:
    """The run went back from 50, whose bytes but not sizes changed, to 10: the step just saved stays."""
    save_simple(tmp_path, 10)
    weights = save_simple(tmp_path, 50) / CONTENT[0]
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    save_simple(tmp_path, 20, keep=1)
    found = load_latest(tmp_path, SIGNATURE)
    assert found is not None and found.step == 20
    save_simple(tmp_path, 50, keep=1)  # reached again: written anew
    found = load_latest(tmp_path, SIGNATURE)
    assert found is not None and found.step == 50
    assert names(tmp_path) == ["step-000050"]


def test_an_optimizer_file_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    folder = tmp_path / "checkpoints"
    save(folder, 1, model_state={}, optimizer_state={"x": Hostile()}, state={}, signature=SIGNATURE, keep=1)
    with pytest.raises(Exception, match="weights_only"):
        load_latest(folder, SIGNATURE)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("module", "name"), [(parts, "write_tensors"), (parts, "_write_optimizer"), (checkpoint, "write_manifest")]
)
def test_a_failure_leaves_no_trace_and_the_earlier_checkpoint(
    tmp_path: Path, module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_simple(tmp_path, 10)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, name, full)
    with pytest.raises(OutOfSpace, match=r"no space left to write .*step-000020"):
        save_simple(tmp_path, 20)
    assert names(tmp_path) == ["step-000010"]


def test_a_failed_write_inside_torch_save_keeps_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda *arguments: Full())
    with pytest.raises(OSError, match="No space left on device"):
        parts._write_optimizer(tmp_path / "optimizer.pt", {"x": torch.zeros(3)})


@pytest.mark.parametrize("large", ["model_state", "optimizer_state", "state"])
def test_a_really_full_disk_is_named_and_costs_nothing(tmp_path: Path, large: str) -> None:
    content: dict[str, Any] = {"model_state": {}, "optimizer_state": {}, "state": {}}
    content[large] = {"x": "0" * 2_000_000 if large == "state" else torch.zeros(500_000)}
    with small_disk(tmp_path / "disk", "1m") as disk:
        save_simple(disk, 10)
        with pytest.raises(OutOfSpace, match=r"no space left to write .*step-000020"):
            save(disk, 20, **content, signature=SIGNATURE, keep=1)
        assert names(disk) == ["step-000010"]
        found = load_latest(disk, SIGNATURE)
        assert found is not None and found.step == 10
        save_simple(disk, 20)
        del found


def test_the_manifest_vouches_for_every_file(tmp_path: Path) -> None:
    path = save_simple(tmp_path, 3)
    manifest = json.loads((path / MANIFEST).read_text())
    assert {key: manifest[key] for key in ("step", "signature", "aliases")} == {
        "step": 3,
        "signature": SIGNATURE,
        "aliases": {},
    }
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {
        name: (path / name).stat().st_size for name in CONTENT
    }
