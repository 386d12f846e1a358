"""Threads from the model, slots from cores and memory: what is frozen is the same on every machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.grid.cells import Cell
from sweeps.memory.model_size import ModelSize, model_size, planned_size
from sweeps.plan.estimate import split_into_jobs
from sweeps.queues import machine
from sweeps.queues.base import open_queue
from sweeps.queues.local import LocalQueue
from sweeps.queues.machine import free_gib, memory_gib, num_cores, num_slots, num_threads, torch_knows_cuda

Make = Callable[..., list[Cell]]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``cores(64, free_gib=32)``: another machine."""

    def become(count: int, free_gib: float = 1000.0) -> None:
        monkeypatch.setattr("sweeps.queues.machine.num_cores", lambda: count)
        monkeypatch.setattr("sweeps.queues.machine.free_gib", lambda: free_gib)

    monkeypatch.setattr("sweeps.queues.local.visible_gpus", list)
    return become


def model(folder: Path, parameters: int, **config: Any) -> Path:
    """A folder with the header of a model of so many parameters."""
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100} | config)
    )
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [parameters // 2, 2]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def test_the_size_of_the_shipped_model_is_read_from_its_header() -> None:
    size = model_size(None)
    assert size is not None and size.parameters == 795_008 == size.shape.parameters
    assert (size.shape.hidden, size.shape.layers, size.shape.vocabulary) == (128, 4, 56)


@pytest.mark.parametrize(
    ("parameters", "threads"),
    [(800_000, 1), (19_000_000, 1), (20_000_000, 2), (135_000_000, 4), (500_000_000, 8), (7_000_000_000, 8)],
)
def test_threads_follow_the_size_of_the_model(parameters: int, threads: int, tmp_path: Path) -> None:
    assert num_threads(model_size(str(model(tmp_path / "m", parameters)))) == threads


def test_shards_are_added_and_pickles_weighed(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", 1000)
    (folder / "model-2.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    size = model_size(str(folder)) or ModelSize(parameters=0)
    assert (size.parameters, size.shape.hidden, size.shape.layers, size.shape.vocabulary) == (2000, 64, 2, 100)
    old = model(tmp_path / "old", 1000, dtype="bfloat16")
    (old / "model.safetensors").unlink()
    (old / "pytorch_model.bin").write_bytes(b"\0" * 500)
    assert (model_size(str(old)) or ModelSize(parameters=0)).parameters == 250


@pytest.mark.parametrize("damage", ["no folder", "hub/name", "no config", "torn", "garbage", "huge"])
def test_what_cannot_be_read_has_no_size_and_is_left_to_the_check(damage: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "m", 1000)
    weights = folder / "model.safetensors"
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "torn":
        weights.write_bytes(weights.read_bytes()[:20])
    elif damage == "garbage":
        (folder / "config.json").write_text("[1]")
    elif damage == "huge":
        weights.write_bytes(b"\xff" * 100)
    path = damage if "/" in damage else str(tmp_path / "nowhere") if damage == "no folder" else str(folder)
    assert model_size(path) is None and planned_size(path) is None
    assert num_threads(model_size(path)) == machine.MAX_THREADS


def test_what_is_frozen_does_not_depend_on_the_machine(make_cells: Make, cores: Callable[..., None]) -> None:
    found = []
    for count in (1, 2, 64):
        cores(count)
        (cell,) = make_cells([])
        found.append((cell.signature, cell.config["hardware"]["num_threads"], cell.config["hardware"]["device"]))
    assert found == [(found[0][0], 1, "cpu")] * 3


def test_a_device_left_open_is_decided_by_the_queue_and_the_build_of_torch(
    make_cells: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def device(*overrides: str) -> str:
        return str(make_cells([*overrides])[0].config["hardware"]["device"])

    slurm = "launcher=slurm"
    for knows, gpus, expected in ((True, 1, "cuda"), (True, 0, "cpu"), (False, 1, "cpu")):
        monkeypatch.setattr("sweeps.queues.machine.torch_knows_cuda", lambda knows=knows: knows)
        assert device(slurm, f"launcher.gpus={gpus}") == expected
    monkeypatch.setattr("sweeps.queues.machine.torch_knows_cuda", lambda: True)
    monkeypatch.setattr("sweeps.queues.local.visible_gpus", lambda: ["0"])
    assert device() == "cuda"
    assert device("hardware.device=cpu") == "cpu"


def test_the_build_of_torch_is_read_without_importing_it() -> None:
    import torch

    assert torch_knows_cuda() == (torch.version.cuda is not None)


def test_slots_fill_cores_and_memory_bounds_them(make_cells: Make, cores: Callable[..., None]) -> None:
    def slots(*overrides: str) -> int:
        (cell,) = make_cells([*overrides])
        return open_queue(cell.config["launcher"], [cell.config]).concurrency

    cores(16)
    assert slots() == 16
    assert slots("hardware.num_threads=3") == 5
    assert slots("hardware.num_threads=32") == 1
    assert slots("launcher.slots=3") == 3
    assert slots("hardware.processes=4") == 4
    cores(16, free_gib=9.0)
    assert 1 < slots() < 9
    assert slots("engine.kv_cache_gib=6") == 1
    cores(2, free_gib=0.1)
    assert slots() == 1


def test_the_most_demanding_cell_decides(make_cells: Make, cores: Callable[..., None]) -> None:
    cores(8)
    made = make_cells(["hardware.num_threads=1"], ["hardware.num_threads=4"])
    assert num_slots([cell.config for cell in made]) == 2


def test_a_machine_with_gpus_has_a_slot_for_each(make_cells: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.queues.machine.num_cores", lambda: 16)
    monkeypatch.setattr("sweeps.queues.machine.free_gib", lambda: 1000.0)
    monkeypatch.setattr("sweeps.queues.machine.torch_knows_cuda", lambda: True)
    monkeypatch.setattr("sweeps.queues.local.visible_gpus", lambda: ["0", "1"])
    for overrides, expected in (([], 2), (["hardware.device=cpu"], 16), (["launcher.gpus_per_job=2"], 1)):
        (cell,) = make_cells(overrides)
        assert open_queue(cell.config["launcher"], [cell.config]).concurrency == expected


def test_a_larger_model_or_batch_needs_more_memory(make_cells: Make, tmp_path: Path) -> None:
    config = make_cells([])[0].config
    plain = memory_gib(config)
    assert 1.5 < plain < 4
    assert memory_gib({**config, "hardware": config["hardware"] | {"micro_batch_tokens": 65536}}) > plain + 1
    assert memory_gib({**config, "engine": config["engine"] | {"kv_cache_gib": 3.0}}) == pytest.approx(plain + 2)
    few = config["hardware"] | {"micro_batch_tokens": 1}
    large = {**config, "model": config["model"] | {"path": str(model(tmp_path / "m", 2**28))}, "hardware": few}
    narrow = {**large, "model": large["model"] | {"dtype": "bfloat16"}}
    # Weights, gradients, two moments, two copies in vLLM: 24 bytes a parameter; with masters of 16 bits 22.
    assert memory_gib(large) - memory_gib(narrow) == pytest.approx(2 * 2**28 / 2**30, rel=1e-3)


@pytest.mark.parametrize(
    ("runs", "slots", "jobs"), [(4, 2, [2, 2]), (13, 2, [7, 6]), (100, 2, [10] * 10), (3, 16, [1] * 3)]
)
def test_jobs_are_shared_out_evenly(
    runs: int, slots: int, jobs: list[int], make_cells: Make, cores: Callable[..., None]
) -> None:
    cores(64)
    (cell,) = make_cells([])
    assert [len(share) for share in split_into_jobs([cell] * runs, LocalQueue(slots=slots).job_size(runs))] == jobs


def files(monkeypatch: pytest.MonkeyPatch, folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr("sweeps.queues.machine.CGROUP", folder)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_a_container_has_the_cores_of_its_quota(
    content: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(monkeypatch, tmp_path / "cgroup", content)
    assert num_cores() == expected


def test_a_container_has_the_memory_of_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 2**20
    files(monkeypatch, tmp_path / "none", {})
    unbounded = free_gib()
    two = {
        "memory.max": f"{900 * mib}",
        "memory.current": f"{600 * mib}",
        "memory.stat": f"anon 1\ninactive_file {100 * mib}\n",
    }
    files(monkeypatch, tmp_path / "two", two)
    assert free_gib() == pytest.approx(400 / 1024)
    files(monkeypatch, tmp_path / "open", {"memory.max": "max", "memory.current": "1"})
    assert free_gib() == pytest.approx(unbounded, rel=0.5)


def test_a_plan_knows_hub_models_by_name_or_from_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = planned_size("Qwen/Qwen2.5-0.5B")
    assert known is not None and known.parameters == 494_032_768 and model_size("Qwen/Qwen2.5-0.5B") is None
    described = tmp_path / "config.json"
    described.write_text(json.dumps({"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 1}))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(described))
    found = planned_size("someone/cached")
    # One head of 4: four of 4 x 4, three of 4 x 16, two norms of 4; twice 10 x 4 and a last norm at the ends.
    assert found is not None and found.parameters == 64 + 192 + 8 + 84
