"""RMS norm on a CPU with a hand-written backward, which reads and writes memory half as often as autograd's.

Switched on by ``model.py`` together with ``cpu_matmul.py``.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.policy.cpu_matmul import float32_on_cpu

EPSILONS = ("variance_epsilon", "eps")
"""What models call the number below."""


def use_rms_norm(model: nn.Module) -> nn.Module:
    """Give the norms of ``model`` this gradient if they are RMS norms in float32 on a CPU; returns ``model``.

    A norm counts by what it computes, not by its name alone: some multiply by ``1 + weight``, and keep their own.
    """
    for module in model.modules():
        if _is_rms_norm(module):
            module.__class__ = _quick(type(module))  # type: ignore[arg-type]
    return model


class RMSNorm(torch.autograd.Function):
    """``y = w n`` with ``n = x r`` and ``r = (mean(x^2) + eps)^(-1/2)`` over the last axis;
    ``dx = r (w dy - n mean(w dy n))``, ``dw = sum(dy n)`` over all others; forward mode
    ``dy = w r (dx - n mean(n dx)) + n dw``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        size: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        r = size.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        ctx.save_for_forward(x, weight, r)
        return (x * r).mul_(weight)

    @staticmethod
    def jvp(ctx: Any, along_x: Tensor | None, along_weight: Tensor | None, _: None) -> Tensor:
        x, weight, r = ctx.saved_for_forward
        n = x * r
        along = torch.zeros_like(x)
        if along_x is not None:
            along = (along_x - n * (n * along_x).mean(dim=-1, keepdim=True)) * r * weight
        return along if along_weight is None else along + n * along_weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, r = ctx.saved_tensors
        n = x * r
        along = grad * n
        grad_weight = along.reshape(-1, x.shape[-1]).sum(dim=0)
        mean = (along @ weight).div_(x.shape[-1])[..., None]
        return (grad * weight).sub_(n.mul_(mean)).mul_(r), grad_weight, None


@functools.cache
def _quick(kind: Any) -> Any:
    """``kind`` with this forward pass, where it serves."""

    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        if not float32_on_cpu(hidden_states, self.weight):  # the model has moved to a GPU, or another type
            own: Tensor = kind.forward(self, hidden_states)
            return own
        normed: Tensor = RMSNorm.apply(hidden_states, self.weight, _epsilon(self))  # type: ignore[no-untyped-call]
        return normed

    return type(kind.__name__, (kind,), {"forward": forward})


def _is_rms_norm(module: nn.Module) -> bool:
    weight, eps = getattr(module, "weight", None), _epsilon(module)
    if not type(module).__name__.endswith("RMSNorm") or eps is None or weight is None or weight.ndim != 1:
        return False
    x = torch.linspace(-2, 3, 3 * len(weight)).view(3, -1)
    if not float32_on_cpu(x, weight):
        return False
    with torch.no_grad():
        return torch.allclose(module(x), RMSNorm.apply(x, weight, eps), rtol=1e-5, atol=1e-6)  # type: ignore[no-untyped-call]


def _epsilon(module: Any) -> float | None:
    return next((getattr(module, name) for name in EPSILONS if hasattr(module, name)), None)
