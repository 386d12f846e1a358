"""One optimiser update split, element by element, into the parts of gradient, momentum and weight decay.

Pure functions of the optimiser's state *before* the update; they must not step it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """``delta = -preconditioner * gradient + momentum + decay`` of one parameter; all in units of the parameter but
    the preconditioner, which is a parameter over a gradient."""

    preconditioner: Float[Tensor, "*shape"]
    momentum: Float[Tensor, "*shape"]
    decay: Float[Tensor, "*shape"]


def movement(
    optimizer: torch.optim.Optimizer,
    group: Mapping[str, Any],
    parameter: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
) -> Movement:
    """What ``optimizer.step()`` is about to do to ``parameter``, a member of ``group``, given its (clipped) gradient.

    The preconditioner is the diagonal that multiplies *this* gradient, with Adam's second moment after the update,
    so the three parts add up to the update itself and not to a linearisation of it. Raises ``ValueError`` for an
    optimiser other than AdamW and SGD (without Nesterov momentum, dampening, AMSGrad or maximisation). All parts are in
    units of the parameter.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    state = optimizer.state.get(parameter, {})
    unusual = [name for name in ("nesterov", "dampening", "amsgrad", "maximize") if group.get(name)]
    if type(inner) is torch.optim.AdamW and not unusual:
        return _adamw(group, state, parameter, gradient)
    if type(inner) is torch.optim.SGD and not unusual:
        return _sgd(group, state, parameter)
    raise ValueError(
        f"the entropy ledger knows the updates of AdamW and SGD, not those of {type(inner).__name__}"
        f"{' with ' + ', '.join(unusual) if unusual else ''}: set accounting.ledger_every=0"
    )


def _adamw(group: Mapping[str, Any], state: Mapping[str, Any], parameter: Tensor, gradient: Tensor) -> Movement:
    """Loshchilov and Hutter, arXiv 1711.05101, in PyTorch's order: decay first, of the weights before the update."""
    beta1, beta2 = group["betas"]
    steps = float(state["step"]) + 1 if state else 1.0
    zero = torch.zeros_like(parameter)
    first, second = (state["exp_avg"], state["exp_avg_sq"]) if state else (zero, zero)
    second = beta2 * second + (1 - beta2) * gradient.square()
    size = (second / (1 - beta2**steps)).sqrt_().add_(group["eps"])
    rate = group["lr"] / (1 - beta1**steps)
    return Movement(
        preconditioner=rate * (1 - beta1) / size,
        momentum=-rate * beta1 * first / size,
        decay=-group["lr"] * group["weight_decay"] * parameter.detach(),
    )


def _sgd(group: Mapping[str, Any], state: Mapping[str, Any], parameter: Tensor) -> Movement:
    buffer = state.get("momentum_buffer")
    before = torch.zeros_like(parameter) if buffer is None else buffer
    return Movement(
        preconditioner=torch.full_like(parameter, group["lr"], requires_grad=False),
        momentum=-group["lr"] * group["momentum"] * before,
        decay=-group["lr"] * group["weight_decay"] * parameter.detach(),
    )
