"""What a plan says of memory, and the runs that cannot fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sweeps.grid.cells import Cell
from sweeps.plan import memory
from sweeps.plan.memory import device_gib, memory_table, needs, require_memory
from sweeps.queues.local import LocalQueue
from sweeps.queues.slurm import SlurmQueue
from trainer.contract.settings import ConfigError

Make = Callable[..., list[Cell]]
SLURM = SlurmQueue(gpus=1)
GPU = ("hardware=h100x1", "launcher=slurm")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_gib", lambda: 16.0)


def sentences(make_cells: Make, queue: Any, *overrides: str) -> list[str]:
    try:
        require_memory(needs([cell.config for cell in make_cells([*overrides])], queue))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_a_table_has_a_line_for_every_distinct_need(make_cells: Make) -> None:
    made = make_cells(["seed=0"], ["seed=1"], ["hardware.micro_batch_tokens=1024"], ["model=qwen2.5-0.5b"])
    head, *lines = memory_table(needs([cell.config for cell in made], LocalQueue())).splitlines()
    assert len(lines) == 3
    assert head.split("  ")[0] == "memory of a rank, GiB" and "master weights" in head and "reference" not in head
    assert lines[0].startswith("the shipped model on cpu") and lines[0].endswith("16.0")
    assert lines[2].startswith("Qwen/Qwen2.5-0.5B on cpu")
    assert memory_table([]) == ""


def test_a_model_that_nothing_is_known_of_has_no_line_and_is_not_refused(make_cells: Make) -> None:
    made = make_cells(["model.path=nobody/nothing"])
    assert needs([cell.config for cell in made], LocalQueue()) == []


def test_7b_does_not_fit_80_gib_and_the_sum_is_in_the_sentence(make_cells: Make) -> None:
    (said,) = sentences(make_cells, SLURM, "model=qwen2.5-7b-math", *GPU)
    # Bytes of 7 615 616 512 parameters: 2, 4, 8, 4 of them in GiB.
    assert "weights 14.2 + master weights 28.4 + AdamW 56.7 + gradients 28.4 + activations 11.8" in said
    assert said.endswith(
        "but the device has 79.0 GiB (hardware.memory_gib, if that is wrong): train an adapter (model.lora_rank=32), "
        "or take a smaller model or a larger device"
    )
    assert sentences(make_cells, SLURM, "model=qwen2.5-7b-math", "model.lora_rank=32", *GPU) == []
    assert sentences(make_cells, SLURM, "model=qwen2.5-1.5b", *GPU) == []


def test_what_takes_most_is_what_to_lower(make_cells: Make) -> None:
    long = ("hardware.micro_batch_tokens=1000000", "rollout.max_tokens=4000")
    (said,) = sentences(make_cells, LocalQueue(), *long, "hardware.device=cpu")
    assert said.endswith("set model.gradient_checkpointing=true, or lower hardware.micro_batch_tokens=1000000")
    (said,) = sentences(make_cells, LocalQueue(), "engine.kv_cache_gib=20", "hardware.device=cpu")
    assert said.endswith("lower engine.kv_cache_gib")
    (said,) = sentences(make_cells, SLURM, "model=qwen2.5-1.5b", "engine.gpu_memory_frac=0.9", *GPU)
    assert said.endswith("lower engine.gpu_memory_frac") or "train an adapter" in said


def test_vllms_share_has_to_hold_its_weights(make_cells: Make) -> None:
    (said,) = sentences(make_cells, SLURM, "model=qwen2.5-7b-math", "hardware=rtx4090", "launcher=slurm")
    assert said.startswith(
        "Qwen/Qwen2.5-Math-7B on cuda: vLLM's share of 23.5 GiB is 10.6 GiB (engine.gpu_memory_frac=0.45), but its "
        "weights take 14.2 GiB and "
    )


def test_ranks_on_a_cpu_share_its_memory_and_those_on_gpus_do_not(make_cells: Make) -> None:
    assert sentences(make_cells, LocalQueue(), "hardware.device=cpu") == []
    (said,) = sentences(make_cells, LocalQueue(), "hardware.device=cpu", "hardware.processes=8")
    assert "cannot fit: 8 ranks x (process 0.9 + " in said and "16.0 GiB (hardware.memory_gib, if" in said
    (said,) = sentences(make_cells, SlurmQueue(memory_gib=1), "hardware.device=cpu")
    assert "the device has 1.0 GiB (launcher.memory_gib, if that is wrong)" in said
    assert sentences(make_cells, SLURM, "model=qwen2.5-1.5b", "hardware=h100x8", "launcher=slurm") == []


def test_the_memory_of_a_device() -> None:
    cpu, gpu = {"device": "cpu", "memory_gib": None}, {"device": "cuda", "memory_gib": None}
    assert device_gib(cpu | {"memory_gib": 4.0}, LocalQueue()) == 4.0
    assert device_gib(cpu, LocalQueue()) == 16.0 and device_gib(gpu, LocalQueue()) is None
    assert device_gib(cpu, SlurmQueue(memory_gib=32)) == 32.0 and device_gib(cpu, SlurmQueue()) is None
