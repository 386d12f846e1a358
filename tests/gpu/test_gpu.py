"""What only a GPU can show: kernels in bfloat16, token statistics on CUDA, a real run on it, resumption, faults.

    make gpu-check

Skipped where torch sees no GPU. Uses the transformers engine and no tracker, so it needs neither vLLM nor MLflow.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import metrics, write_run
from torch import Tensor

from trainer.batch.collate import collate
from trainer.batch.types import Prompt, Rollout, TokenBatch, Verdict
from trainer.contract.config import ModelConfig
from trainer.objective.objective import Objective
from trainer.policy.model import load_model, share_prompts
from trainer.policy.policy import Policy
from trainer.policy.token_stats import plain_token_stats, token_stats
from trainer.runtime.sharding import whole
from trainer.storage.record import RunFolder
from trainer.supervise import run_all

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here: run `make gpu-check` on one"),
]
CUDA = torch.device("cuda", 0)
SMOOTH = ("sum_p2", "sum_p2_logp_h", "entropy_t1")
CUT = ("top_p_entropy@0.8", "min_p_logmass@0.05")
"""Statistics of the tokens above a threshold, which rounding to 16 bits may move a token across."""


def inputs(vocabulary: int, *, rows: int = 96, width: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64) / width**0.5 * 3
    return hidden, weight, torch.randint(vocabulary, (rows,), generator=generator)


@pytest.mark.parametrize("vocabulary", [22, 151_936])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.bfloat16, 5e-2)])
def test_token_statistics_on_cuda_are_those_of_float64(vocabulary: int, dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, targets = (value.to(CUDA) for value in inputs(vocabulary))
    given = [value.to(dtype) for value in (hidden, weight)]
    ours = [value.clone().requires_grad_() for value in given]
    exact = [value.double().requires_grad_() for value in given]
    statistics = SMOOTH + CUT * (dtype == torch.float32)
    found = token_stats(*ours, targets, temperature=0.7, statistics=statistics)
    expected = plain_token_stats(*exact, targets, temperature=0.7, statistics=statistics)
    for name, value in expected.items():
        error = (found[name].double() - value).abs().max() / value.abs().max().clamp(min=1.0)
        assert error <= tolerance, f"{name}: {float(error):.2g}"
    for name in ("logprobs", "entropy"):
        one = torch.autograd.grad(found[name].sum(), ours, retain_graph=True)
        other = torch.autograd.grad(expected[name].sum(), exact, retain_graph=True)
        for mine, theirs in zip(one, other, strict=True):
            error = (mine.double() - theirs).norm() / theirs.norm()
            assert error <= tolerance, f"gradient of {name}: {float(error):.2g}"


def batch() -> TokenBatch:
    """Fixed tokens."""
    rollouts = [
        Rollout(
            prompt=Prompt(id=str(group), text=""),
            prompt_ids=tuple(3 + (group + i) % 18 for i in range(12)),
            completion_ids=tuple(3 + (7 * group + 3 * sample + i) % 18 for i in range(20 + sample)),
            sampler_logprobs=(0.0,) * (20 + sample),
            finish_reason="length",
            text="",
            group=group,
            weight_version=0,
            verdict=Verdict(reward=0.0),
        )
        for group in range(4)
        for sample in range(4)
    ]
    return collate(rollouts, pad_id=0)


def shipped(device: torch.device, dtype: str) -> Policy:
    """The shipped model."""
    model = load_model(ModelConfig(dtype=dtype)).to(device)
    shares = share_prompts(model)
    return Policy(
        model=model, temperature=1.0, head_chunk=4096, micro_batch_tokens=4096, device=device, shares_prompts=shares
    )


def logprobs(device: torch.device, dtype: str) -> tuple[Tensor, Tensor, bool]:
    """Log-prob and entropy of fixed tokens under the shipped model, and whether it shares prompts."""
    policy, fixed = shipped(device, dtype), batch()
    terms = policy.measure(fixed)
    return terms.logprobs[fixed.mask], terms.entropy[fixed.mask], policy.shares_prompts


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A group of one process, as FSDP2 asks for."""
    backend = f"cpu:gloo,{CUDA.type}:nccl" if CUDA.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("offload", [False, True])
def test_sharded_weights_give_the_gradients_of_whole_ones(offload: bool, one_rank: None) -> None:
    found = []
    for policy in (shipped(CUDA, "float32"), shipped(CUDA, "float32").sharded(offload=offload)):
        fixed = batch()
        (index,) = policy.micro_batch_indices(fixed)
        rows = fixed.rows(index).to(CUDA)
        policy.terms(rows).logprobs[rows.mask].sum().backward()
        found.append(
            {name: whole(weight.grad) for name, weight in policy.model.named_parameters() if weight.grad is not None}
        )
    one, other = found
    assert one.keys() == other.keys() and one
    for name, gradient in one.items():
        assert other[name].device.type == ("cpu" if offload else CUDA.type)
        torch.testing.assert_close(other[name].cpu(), gradient.cpu(), rtol=1e-3, atol=1e-3)


def test_bfloat16_on_cuda_is_float32_up_to_its_digits() -> None:
    cpu, cuda, half = (
        logprobs(device, dtype)
        for device, dtype in ((torch.device("cpu"), "float32"), (CUDA, "float32"), (CUDA, "bfloat16"))
    )
    assert cpu[2] and cuda[2] and half[2], "the shipped model shares prompts everywhere"
    for column in (0, 1):
        assert (cpu[column] - cuda[column]).abs().max() < 1e-3
        gap = (cpu[column] - half[column]).abs()
        assert gap.mean() < 0.05 and gap.max() < 1.5


BASE: dict[str, Any] = {"hardware.device": "cuda", "accounting.ledger_every": 1, "steps": 3}


def trained(path: Path, changes: Mapping[str, Any]) -> RunFolder:
    folder = write_run(path, BASE | dict(changes))
    assert run_all([folder.path]) == 0, (folder.path / "status.json").read_text()
    return folder


TYPES = {
    "float32": ({"model.dtype": "float32"}, 2e-3, 2e-4),
    "bfloat16": ({"model.dtype": "bfloat16"}, 1.5, 0.05),
    "autocast": ({"hardware.mixed_precision": "bf16"}, 1.5, 0.05),
    "float16": ({"model.dtype": "float16"}, 0.3, 0.02),
}


@pytest.mark.parametrize("kind", TYPES)
def test_the_default_task_trains_on_cuda_and_its_entropy_is_accounted_for(kind: str, tmp_path: Path) -> None:
    changes, largest, mean = TYPES[kind]
    folder = trained(tmp_path / "run", changes)
    lines = [line for line in metrics(folder) if "policy/loss" in line]
    assert len(lines) == 3
    for line in lines:
        assert line["engine/logprob_gap_max"] <= largest and line["engine/logprob_gap_mean"] <= mean
        if "ledger/predicted" in line:  # none where float16 skipped the update
            assert line["ledger/exact"] == 1.0, "an operator had no forward mode"
            parts = abs(line["ledger/policy"]) + abs(line["ledger/momentum"]) + 1e-6
            assert line["ledger/identity_error"] <= 0.02 * parts
    if kind == "float16":
        assert all("policy/overflow_frac" in line for line in lines)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_goes_on_where_it_was(dtype: str, tmp_path: Path, record_property: Any) -> None:
    """Sums on CUDA are not in a fixed order, so curves agree to rounding; where they agree bit for bit it is noted."""
    changes = {"model.dtype": dtype, "checkpoint.keep": 9, "steps": 4, "optim.lr": 1e-4}
    whole = trained(tmp_path / "whole", changes)
    torn = RunFolder(tmp_path / "torn")
    shutil.copytree(whole.path, torn.path)
    (torn.path / "status.json").unlink()
    for step in (3, 4):
        shutil.rmtree(torn.checkpoints / f"step-{step:06d}")
    assert run_all([torn.path]) == 0
    one, other = metrics(whole), metrics(torn)
    assert len(one) == len(other)
    record_property("bit_equal", json.dumps(one) == json.dumps(other))
    assert one[2]["rollout/length_mean"] == other[2]["rollout/length_mean"], (
        "the step after the checkpoint samples alike"
    )
    tolerance = 1e-3 if dtype == "float32" else 5e-2
    assert one[2]["policy/entropy"] == pytest.approx(other[2]["policy/entropy"], abs=tolerance)
    assert one[2]["policy/grad_norm"] == pytest.approx(other[2]["policy/grad_norm"], rel=50 * tolerance)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Objective.loss

    def spoilt(*given: Any) -> Any:
        value, surrogate = loss(*given)
        return value * torch.nan, surrogate

    monkeypatch.setattr(Objective, "loss", spoilt)
    folder = write_run(tmp_path / "run", BASE | {"model.dtype": "bfloat16"})
    assert run_all([folder.path]) == 1
    status = json.loads((folder.path / "status.json").read_text())
    assert status["state"] == "FAILED" and "is not finite" in status["message"]
    assert (folder.path / "nonfinite_batch.pt").is_file()
