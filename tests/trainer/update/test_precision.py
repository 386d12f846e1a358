"""Float32 master weights under 16-bit compute, loss scaling, and the table of types."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainer.contract.config import HardwareConfig, ModelConfig
from trainer.contract.settings import ConfigError
from trainer.policy.policy import _rounded
from trainer.policy.precision import precision
from trainer.update.loss_scale import LossScale
from trainer.update.master_weights import MasterWeights

UPDATES, LR = 200, 1e-6
TOLERANCE = 0.05
"""Largest distance of a trajectory from that in float32, as a share of the way that float32 went. Gradients in bfloat16
have 8 bits, but Adam divides by their size: what is left is the sign and the slow change of the second moment."""


def small(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(32, 64), nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 32)).to(dtype)


def trained(model: nn.Module, parameters: Iterable[nn.Parameter], after: Callable[[], None]) -> None:
    """Next-token prediction of fixed sequences, 200 updates at the learning rate of the papers."""
    optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    data = torch.randint(32, (UPDATES, 256), generator=torch.Generator().manual_seed(1))
    for tokens in data:
        cross_entropy(model(tokens).float(), (tokens * 7 + 3) % 32).backward()
        optimizer.step()
        optimizer.zero_grad()
        after()


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])


@pytest.fixture(scope="module")
def float32() -> tuple[Tensor, Tensor]:
    """Weights before and after training in float32, from weights that bfloat16 can hold."""
    model = small(torch.bfloat16).float()
    start = flat(model.parameters())
    trained(model, model.parameters(), lambda: None)
    return start, flat(model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_200_updates_at_1e6_follow_float32(dtype: torch.dtype, float32: tuple[Tensor, Tensor]) -> None:
    start, end = float32
    model = small(dtype)
    masters = MasterWeights(model.parameters())
    assert torch.equal(flat(masters.parameters()), start)
    trained(model, masters.parameters(), masters.write)
    found = flat(masters.parameters())
    assert (found - end).norm() <= TOLERANCE * (end - start).norm()
    assert (found != start).float().mean() > 0.99
    assert torch.equal(flat(model.parameters()), found.to(dtype).float()), "the model is the rounded image"
    assert all(master.dtype == torch.float32 for master in masters.parameters())


def test_plain_bfloat16_weights_do_not_follow(float32: tuple[Tensor, Tensor]) -> None:
    start, end = float32
    model = small(torch.bfloat16)
    trained(model, model.parameters(), lambda: None)
    found = flat(model.parameters())
    assert (found - end).norm() > 0.5 * (end - start).norm()
    assert (found != start).float().mean() < 0.2


def test_the_gradients_of_micro_batches_are_added_up_in_float32() -> None:
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    masters = MasterWeights([weight])
    for _ in range(512):  # in bfloat16 the sum stays at 256, where 1 is half of the last digit
        (weight * 1.0).sum().backward()
    assert weight.grad is None
    (master,) = masters.parameters()
    assert master.grad is not None and master.grad.item() == 512.0


def test_float32_weights_are_their_own_masters() -> None:
    model = small(torch.float32)
    masters = MasterWeights(model.parameters())
    assert all(one is other for one, other in zip(masters.parameters(), model.parameters(), strict=True))
    assert masters.state() == {}


def test_masters_survive_a_checkpoint() -> None:
    model = small(torch.bfloat16)
    masters = MasterWeights(model.parameters())
    trained(model, masters.parameters(), masters.write)
    other = MasterWeights(copy.deepcopy(model).parameters())
    assert not torch.equal(flat(other.parameters()), flat(masters.parameters())), "rounding has lost something"
    other.load(masters.state())
    assert torch.equal(flat(other.parameters()), flat(masters.parameters()))


def test_loss_scale_halves_on_overflow_and_doubles_after_good_updates() -> None:
    scale = LossScale(enabled=True, scale=8.0, every=2)
    assert scale.scaled(torch.tensor(3.0)).item() == 24.0
    assert [scale.skips(finite) for finite in (True, False, True, True)] == [False, True, False, False]
    assert scale.scale == 8.0  # 8 -> 4 by the overflow, then two good updates
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([16.0, 8.0])
    scale.unscale([weight])
    assert weight.grad.tolist() == [2.0, 1.0]
    other = LossScale(enabled=True)
    other.load(scale.state())
    assert (other.scale, other.good) == (8.0, 0)


def test_what_is_not_finite_at_the_smallest_scale_is_no_overflow() -> None:
    scale = LossScale(enabled=True, scale=1.0)
    assert not scale.skips(finite=False)
    assert not LossScale().skips(finite=False) and LossScale().scaled(torch.tensor(3.0)).item() == 3.0


@pytest.mark.parametrize(
    ("model", "mixed", "engine", "expected"),
    [
        ("float32", "no", None, (torch.float32, None, torch.float32, "float32", False)),
        ("float32", "bf16", None, (torch.float32, torch.bfloat16, torch.bfloat16, "bfloat16", False)),
        ("float32", "no", "bfloat16", (torch.float32, None, torch.bfloat16, "bfloat16", False)),
        ("bfloat16", "no", None, (torch.bfloat16, None, torch.bfloat16, "bfloat16", False)),
        ("bfloat16", "bf16", "float32", (torch.bfloat16, None, torch.float32, "bfloat16", False)),
        ("float32", "fp16", "float32", (torch.float32, torch.float16, torch.float32, "float16", True)),
        ("float16", "no", None, (torch.float16, None, torch.float16, "float16", True)),
    ],
)
def test_types_of_a_run(model: str, mixed: str, engine: str | None, expected: tuple[object, ...]) -> None:
    types = precision(ModelConfig(dtype=model), HardwareConfig(mixed_precision=mixed), engine)
    assert (types.weights, types.autocast, types.engine, types.coarsest, types.scales_loss) == expected


def test_16_bit_weights_are_not_computed_with_in_another_type() -> None:
    with pytest.raises(ConfigError, match=r"hardware.mixed_precision='fp16' cannot be used: weights in bfloat16"):
        precision(ModelConfig(dtype="bfloat16"), HardwareConfig(mixed_precision="fp16"), None)


def test_log_probs_are_rounded_without_another_gradient() -> None:
    values = torch.tensor([-1.0, -1.003, -5.01], requires_grad=True)
    found = _rounded(values, torch.bfloat16)
    assert found.tolist() == [-1.0, -1.0, -5.0]  # bfloat16 has steps of 1/128 above 1 and 1/32 above 4
    found.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1.0, 1.0, 1.0]
