"""A whole run that trains an adapter: resumed bit for bit, its checkpoints plain models, its reference the base."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from runs import COIN, metrics, record
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from whole_runs import completed, killed_after, trained

from trainer.contract.paths import SHIPPED_MODEL
from trainer.engine.base import EnginePool
from trainer.policy.adapter import adapter_weights
from trainer.session.session import open_session
from trainer.setup.build import build_run
from trainer.storage.checkpoint import load_latest
from trainer.storage.export import export
from trainer.storage.record import RunFolder

LORA = COIN | {
    "model.lora_rank": 4,
    "steps": 3,
    "checkpoint.keep": 3,
    "accounting.every": 0,
    "accounting.ledger_every": 0,
    "optim.lr": 1e-2,
    "optim.updates_per_rollout": 2,
    "regularizer.kl._target_": "trainer.objective.regularizers.kl_reference.KLReference",
    "regularizer.kl.coef": 0.1,
}
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("lora"), EnginePool(), LORA)


def test_sampler_and_trainer_agree(whole: RunFolder) -> None:
    gaps = [step["engine/logprob_gap_max"] for step in metrics(whole)[:3]]  # the last line is an evaluation alone
    assert max(gaps) < 1e-4
    assert gaps[1] > 0  # the adapter's product and the merged matrix are two computations


def test_the_reference_is_the_base_in_the_same_model(whole: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(
        shutil.copytree(whole.path, tmp_path / "copy")
    )  # going on takes the last evaluation off its record
    session = open_session(build_run(copy.config()), copy, EnginePool())
    reference = session.reference.policy
    assert reference is not None and reference.model is session.policy.model
    weights = reference.frozen_weights()
    assert weights.keys() == adapter_weights(session.policy.model).keys()
    assert all(not weight.any() for name, weight in weights.items() if "lora_B" in name)
    assert any(weight.any() for name, weight in adapter_weights(reference.model).items() if "lora_B" in name)


def test_a_killed_run_goes_on_bit_for_bit(whole: RunFolder, tmp_path: Path) -> None:
    assert record(completed(killed_after(1, whole, tmp_path / "resumed"), EnginePool())) == record(whole)


def test_a_checkpoint_is_the_merged_model_and_only_what_is_adapted_has_moved(whole: RunFolder, tmp_path: Path) -> None:
    saved = load_latest(whole.checkpoints, whole.config()["signature"])
    assert saved is not None
    base = load_file(SHIPPED_MODEL / "model.safetensors")
    moved = {name for name, tensor in base.items() if not torch.equal(tensor, saved.model_state[name])}
    assert moved and all(name.split(".")[-2] in ADAPTED for name in moved)
    # 4 layers x 7 projections x (A, B), and nothing of the model itself, has moments.
    assert len(saved.optimizer_state["state"]) == 56 == len(saved.optimizer_state["adapter"])
    exported = export(whole.path, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(exported)
    adapter = load_file(exported / "adapter" / "adapter_model.safetensors")
    weight = plain.state_dict()["model.layers.0.mlp.up_proj.weight"]
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    product = adapter[name.format("B")] @ adapter[name.format("A")] * (32 / 4)
    expected = base["model.layers.0.mlp.up_proj.weight"] + product
    torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-6)
