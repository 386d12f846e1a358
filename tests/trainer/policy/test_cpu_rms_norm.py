"""RMS norms with a gradient by hand are the norms they replace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.contract.config import ModelConfig
from trainer.policy.cpu_rms_norm import RMSNorm, use_rms_norm
from trainer.policy.model import load_model


def plain(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


class TinyRMSNorm(nn.Module):
    """As transformers writes it."""

    def __init__(self, width: int, shift: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, width))
        self.variance_epsilon, self.shift, self.calls = 1e-6, shift, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return plain(x, self.weight + self.shift, self.variance_epsilon)


def test_by_hand() -> None:
    # mean(x^2) = (9 + 16) / 2 = 12.5, with eps 12.5 the norm divides by 5.
    y = RMSNorm.apply(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 10.0]), 12.5)
    torch.testing.assert_close(y, torch.tensor([0.6, 8.0]))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (1, 3, 2, 5)])
def test_gradient_against_finite_differences(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, weight: RMSNorm.apply(x, weight, 1e-3), (x, weight), check_forward_ad=True
    )


def test_the_shipped_model_computes_the_same_in_half_the_way() -> None:
    model: Any = load_model(ModelConfig())
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    assert len(norms) == 4 * 4 + 1 and all(
        "trainer.policy.cpu_rms_norm" in module.forward.__module__ for module in norms
    )
    own = copy.deepcopy(model)
    for module in own.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.__class__ = type(module).__mro__[1]
    tokens = torch.arange(14).view(2, 7) % 20 + 2
    found = []
    for each in (model, own):
        each.zero_grad()
        logits = each(input_ids=tokens, use_cache=False).logits
        logits.log_softmax(-1).square().mean().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in each.parameters())])
    for quick, slow in zip(*found, strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-4, atol=1e-5)


def test_only_what_computes_an_rms_norm_is_replaced() -> None:
    kinds = [TinyRMSNorm(6), TinyRMSNorm(6, shift=1.0), nn.LayerNorm(6), TinyRMSNorm(6).double(), nn.Linear(6, 6)]
    before = [type(module) for module in kinds]
    model = use_rms_norm(nn.Sequential(*kinds))
    assert [type(module) is kind for module, kind in zip(model, before, strict=True)] == [False, True, True, True, True]
    assert isinstance(model[0], TinyRMSNorm) and "0.weight" in model.state_dict()


def test_another_type_takes_the_models_own_way() -> None:
    norm: Any = use_rms_norm(TinyRMSNorm(6))
    x, called = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)), norm.calls
    torch.testing.assert_close(norm(x), plain(x, norm.weight, 1e-6))
    assert norm.calls == called
    norm.double()
    norm(x.double())
    assert norm.calls == called + 1
