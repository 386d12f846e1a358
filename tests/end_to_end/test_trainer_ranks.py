"""Two real processes, started as the queue starts them, compute what one process computes, and go on where it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from runs import metrics, write_run
from torch import Tensor

from sweeps.queues.worker import rank_command
from trainer import loop
from trainer.contract.config import ModelConfig
from trainer.engine.base import EnginePool
from trainer.policy.model import load_model
from trainer.setup.build import build_run
from trainer.storage.export import export
from trainer.storage.parts import read_optimizer, read_weights
from trainer.storage.record import RunFolder

RANK_TOLERANCE = 1e-4
"""The gradient is a sum of two parts instead of one: rounding only, carried through a few updates."""

SETTINGS = {
    "steps": 3,
    "optim.updates_per_rollout": 2,
    "regularizer.bonus._target_": ("trainer.objective.regularizers.entropy_bonus.EntropyBonus"),
}


SHARDABLE = SETTINGS | {
    "accounting.ledger_every": 0,
    "checkpoint.keep": 3,
    "model.gradient_checkpointing": True,
    # Several micro-batches of a mini-batch, not as many for each rank.
    "hardware.micro_batch_tokens": 100,
    "regularizer.kl._target_": "trainer.objective.regularizers.kl_reference.KLReference",
    "regularizer.kl.coef": 0.1,
}


def train(folder: RunFolder, processes: int) -> None:
    launch = rank_command(processes, gpus=False)
    command = [sys.executable, *launch, "-m", "trainer", str(folder.path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", SETTINGS)
    both = write_run(tmp_path / "both", SETTINGS | {"hardware.processes": 2})
    train(alone, 1)
    train(both, 2)
    assert len(metrics(both)) == 4
    assert_same_curves(alone, both)
    status = both.read_status()
    assert status is not None and status.state == "COMPLETED"


@pytest.mark.slow  # two processes that import everything
def test_a_run_goes_on_with_sharded_weights_on_two_ranks_and_back_on_one(tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", SHARDABLE)
    train_here(alone)
    both = cut(alone, tmp_path / "both", 1, {"hardware.processes": 2, "hardware.sharding": "fsdp2"})
    train(both, 2)
    again = cut(both, tmp_path / "again", 2, {})
    train_here(again)
    assert_same_curves(alone, both)
    assert_same_curves(alone, again)
    for folder, name in ((both, "step-000002"), (both, "step-000003"), (again, "step-000003")):
        assert_same_checkpoint(alone.checkpoints / name, folder.checkpoints / name)
    assert len(list((both.checkpoints / "step-000003").glob("*-of-00002.safetensors"))) == 2
    assert (again.checkpoints / "step-000003" / "model.safetensors").is_file()
    written = both.checkpoints / "step-000003"
    assert_same_weights(load_model(ModelConfig(path=str(written))).state_dict(), read_weights(written, files(written)))
    exported = export(both.path, tmp_path / "model")
    assert_same_weights(load_model(ModelConfig(path=str(exported))).state_dict(), read_weights(written, files(written)))


def train_here(folder: RunFolder) -> None:
    assert loop.train(build_run(folder.config()), folder, EnginePool()) == "COMPLETED"


def cut(folder: RunFolder, path: Path, step: int, changes: dict[str, object]) -> RunFolder:
    """A copy of a finished run as it was after ``step`` steps, to be continued with changed settings."""
    shutil.copytree(folder.path, path)
    for saved in path.glob("checkpoints/step-*"):
        if int(saved.name.removeprefix("step-")) > step:
            shutil.rmtree(saved)
    (path / "status.json").unlink()
    return write_run(path, SHARDABLE | changes)


def assert_same_curves(first: RunFolder, second: RunFolder) -> None:
    for one, two in zip(metrics(first), metrics(second), strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            # Correlations jump where rounding turns two near ties around, or moves one token far out.
            tolerance = 0.05 if "corr_" in key else RANK_TOLERANCE
            assert two[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key


def files(checkpoint: Path) -> list[str]:
    return [path.name for path in checkpoint.iterdir()]


def assert_same_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Those that both have: of tied ones a checkpoint has one name only."""
    for name, weight in second.items():
        torch.testing.assert_close(first[name], weight, rtol=0, atol=0)


def assert_same_checkpoint(first: Path, second: Path) -> None:
    """Whole or in parts, up to rounding."""
    one, two = (read_weights(path, files(path)) for path in (first, second))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=RANK_TOLERANCE, atol=1e-5)
    one, two = (read_optimizer(path, files(path)) for path in (first, second))
    assert one.keys() == two.keys() and one["state"].keys() == two["state"].keys()
    for number, moments in one["state"].items():
        assert moments.keys() == two["state"][number].keys()
        for key, value in moments.items():
            torch.testing.assert_close(
                two["state"][number][key], value, rtol=1e-2, atol=1e-3 * float(value.abs().max())
            )


def test_a_missing_rank_is_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", SETTINGS | {"hardware.processes": 2})
    done = subprocess.run(
        [sys.executable, "-m", "trainer", str(folder.path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert "hardware.processes=2 cannot be used: 1 rank(s) were started" in done.stderr
