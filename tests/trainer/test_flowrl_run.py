"""A whole run whose surrogate trains a network of its own: resumed bit for bit, its checkpoints plain models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import COIN, record
from safetensors.torch import load_file
from whole_runs import completed, killed_after, trained

from trainer.contract.paths import SHIPPED_MODEL
from trainer.engine.base import EnginePool
from trainer.policy import prompt_head
from trainer.storage.record import RunFolder

FLOW = COIN | {
    "steps": 3,
    "checkpoint.keep": 3,
    "accounting.every": 0,
    "accounting.ledger_every": 2,
    "optim.updates_per_rollout": 2,
    "surrogate._target_": "trainer.objective.surrogates.flowrl.FlowRL",
    "reduction._target_": "trainer.objective.reductions.SequenceMean",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("flowrl"), EnginePool(), FLOW)


def test_a_killed_run_goes_on_bit_for_bit(whole: RunFolder, tmp_path: Path) -> None:
    assert record(completed(killed_after(1, whole, tmp_path / "resumed"), EnginePool())) == record(whole)


def test_the_network_is_kept_beside_a_plain_model_and_has_moved(whole: RunFolder) -> None:
    before, after = (whole.checkpoints / f"step-{step:06d}" for step in (1, 3))
    assert load_file(after / "model.safetensors").keys() == load_file(SHIPPED_MODEL / "model.safetensors").keys()
    first, last = (torch.load(path / "optimizer.pt", weights_only=True)[prompt_head.NAME] for path in (before, after))
    assert len(last) == 10 and not any(torch.equal(first[name], last[name]) for name in last)
