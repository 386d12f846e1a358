"""Float32 matmuls on a CPU by oneDNN, which PyTorch ships but uses for narrower types only.

Used by ``model.py`` for linear layers and by ``token_stats.py`` for logits. PyTorch gives float32 matmuls to MKL,
which does not use AVX-512 on processors of other makers: oneDNN is twice as fast there, and as exact
(``python -m benchmarks.products``).
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SHAPES_KEPT = {"LRU_CACHE_CAPACITY": "32", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}
"""Code is generated for every new shape and kept, 1 MiB each, for the last 1024 shapes unless told otherwise. But the
number of tokens is another one in every step; a model with layers of eight shapes uses 24 again and again in one."""


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` of [M, K] and [K, N], in the product of their units, by oneDNN where that is possible."""
    if not _served(left, right):
        return left @ right
    # The left factor is copied if it is not in order of rows; the right one may lie as it likes.
    if not left.is_contiguous() and left.shape[0] > right.shape[1]:
        return _product(right.T, left).T
    return _product(left, right.T)


def use_onednn(model: nn.Module) -> nn.Module:
    """Give the linear layers of ``model`` these matmuls, if it is a float32 model on a CPU; returns ``model``.

    Parameters, their names and subclasses of ``nn.Linear`` stay as they are.
    """
    for module in model.modules():
        if type(module) is nn.Linear and _served(module.weight):
            module.__class__ = _Linear
    return model


class _Linear(nn.Linear):
    """``nn.Linear`` for the forward pass, its own gradient behind it."""

    def forward(self, input: Tensor) -> Tensor:
        if not _served(input, self.weight):  # the model has moved to a GPU, or another type
            return super().forward(input)
        product: Tensor = _LinearFunction.apply(input.reshape(-1, self.in_features), self.weight)  # type: ignore[no-untyped-call]
        output = product.reshape(*input.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias


class _LinearFunction(torch.autograd.Function):
    """``y = x W^T``; backward ``dx = dy W``, ``dW = dy^T x``; forward mode ``dy = dx W^T + x dW^T``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        return matmul(x, weight.T)

    @staticmethod
    def jvp(ctx: Any, along_x: Tensor | None, along_weight: Tensor | None) -> Tensor:
        x, weight = ctx.saved_for_forward
        parts = [] if along_x is None else [matmul(along_x, weight.T)]
        parts += [] if along_weight is None else [matmul(x, along_weight.T)]
        return sum(parts[1:], start=parts[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        return matmul(grad, weight) if needs_x else None, matmul(grad.T, x) if needs_weight else None


def float32_on_cpu(*tensors: Tensor) -> bool:
    """Whether all of them are what this module and ``norm.py`` are for."""
    return all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)


def _served(*factors: Tensor) -> bool:
    return _available() and float32_on_cpu(*factors) and all(x.numel() for x in factors)


@functools.cache
def _available() -> bool:
    """Whether the operator, which is PyTorch's own and not promised to users, exists and does what is expected."""
    for name, number in SHAPES_KEPT.items():
        os.environ.setdefault(name, number)  # read when the first product is made
    left, right = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(3, 4)
    try:
        return torch.backends.mkldnn.is_available() and torch.equal(_product(left, right.T), left @ right)
    except (AttributeError, RuntimeError):  # no such operator, or none for this processor
        return False


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T``"""
    if not (right.is_contiguous() or right.T.is_contiguous()):
        # For a part of a matrix oneDNN has nothing but its reference: minutes instead of milliseconds.
        right = right.contiguous()
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [None], "")
    return product
