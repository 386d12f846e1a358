"""oneDNN's matrix products are those of PyTorch, forwards and backwards."""

from __future__ import annotations

import copy
import subprocess
import sys
import time

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from trainer.contract.paths import ROOT
from trainer.policy import cpu_matmul as onednn
from trainer.policy.cpu_matmul import matmul, use_onednn

needs_onednn = pytest.mark.skipif(not onednn._available(), reason="this PyTorch was built without oneDNN")


def error(product: Tensor, exact: Tensor, scale: Tensor | None = None) -> float:
    """Relative to ``scale``; where terms cancel (a product of one element may be near 0), that is their size."""
    return float((product.double() - exact).abs().mean() / (exact if scale is None else scale).abs().mean())


@pytest.mark.parametrize("transposed", ["neither", "left", "right", "both"])
@pytest.mark.parametrize("shape", [(300, 70, 40), (40, 300, 70), (1, 5, 1)])
def test_a_product_is_as_exact_as_pytorchs(transposed: str, shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    if transposed in ("left", "both"):
        left = left.T.contiguous().T
    if transposed in ("right", "both"):
        right = right.T.contiguous().T
    exact = left.double() @ right.double()
    size = left.double().abs() @ right.double().abs()
    assert matmul(left, right).shape == exact.shape
    assert error(matmul(left, right), exact, size) <= 2 * error(left @ right, exact, size) + 2.5e-7


@needs_onednn
def test_parts_of_matrices_do_not_fall_back_to_a_reference_that_takes_minutes() -> None:
    whole = torch.randn(512, 8192)
    right = torch.randn(512, 896)
    start, left = time.process_time(), whole.T[:4096]
    assert error(matmul(left, right), left.double() @ right.double()) < 1e-5
    assert error(matmul(right.T, whole[:, 4096:]), right.double().T @ whole[:, 4096:].double()) < 1e-5
    assert time.process_time() - start < 60, "a hundred times what it takes"


@needs_onednn
@pytest.mark.parametrize("along", [(True, True), (True, False), (False, True)])
def test_a_linear_layer_has_a_forward_mode(along: tuple[bool, bool]) -> None:
    x, weight, dx, dw = (torch.randn(shape) for shape in ((9, 24), (40, 24), (9, 24), (40, 24)))
    with forward_ad.dual_level():
        left, right = (
            forward_ad.make_dual(value, tangent) if moves else value
            for value, tangent, moves in zip((x, weight), (dx, dw), along, strict=True)
        )
        found = forward_ad.unpack_dual(onednn._LinearFunction.apply(left, right)).tangent
    expected = along[0] * (dx.double() @ weight.double().T) + along[1] * (x.double() @ dw.double().T)
    assert error(found, expected) < 1e-6


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_keeps_its_values_and_gradients(bias: bool) -> None:
    plain = nn.Sequential(nn.Linear(24, 40, bias=bias), nn.SiLU(), nn.Linear(40, 8, bias=bias))
    ours = use_onednn(copy.deepcopy(plain))
    assert list(ours.state_dict()) == list(plain.state_dict())
    x = torch.randn(3, 50, 24)
    found = []
    for model in (plain, ours):
        leaf = x.clone().requires_grad_()
        out = model(leaf)
        out.square().sum().backward()
        found.append([out, leaf.grad, *(parameter.grad for parameter in model.parameters())])
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


@needs_onednn
def test_float32_models_on_a_cpu_are_served_and_no_others() -> None:
    class Own(nn.Linear):
        """A layer of somebody's own: its forward pass may be anything."""

    model = nn.Sequential(nn.Linear(2, 3), Own(3, 3), nn.Linear(3, 2).double())
    assert [type(part) for part in use_onednn(model)] == [onednn._Linear, Own, nn.Linear]


@needs_onednn
def test_a_served_layer_follows_its_model_to_another_type_and_takes_nothing_at_all() -> None:
    model = use_onednn(nn.Linear(4, 3))
    assert model(torch.zeros(0, 4)).shape == (0, 3)
    assert torch.autograd.gradcheck(model.double(), torch.randn(5, 4, dtype=torch.float64, requires_grad=True))


def test_without_onednn_pytorch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(left: Tensor, right: Tensor) -> Tensor:
        """What PyTorch raises where it has no kernel for an operator."""
        raise NotImplementedError("Could not run 'mkldnn::_linear_pointwise'")

    monkeypatch.setattr(onednn, "_product", missing)
    onednn._available.cache_clear()
    try:
        assert type(use_onednn(nn.Linear(2, 2))) is nn.Linear
        assert torch.equal(matmul(torch.ones(2, 2), torch.ones(2, 2)), torch.full((2, 2), 2.0))
    finally:
        onednn._available.cache_clear()


@needs_onednn
def test_shapes_that_change_from_step_to_step_do_not_fill_the_memory() -> None:
    """A process of its own: the limits are read once. 150 shapes of 1 MiB each and more would be seen."""
    code = """
import torch
from trainer.policy.cpu_matmul import matmul

def resident_mib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024

right = torch.randn(384, 384)
for rows in range(1000, 1050):
    matmul(torch.randn(rows, 384), right)
before = resident_mib()
for rows in range(1050, 1350):
    matmul(torch.randn(rows, 384), right)
print(resident_mib() - before)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(ran.stdout) < 100
