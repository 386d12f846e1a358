"""Log-prob, entropy and friends of chosen tokens, from hidden states, in one chunked pass with a hand-written backward.

Called by ``policy.py`` only. This is the one place where the temperature is applied, and the one place that ever sees
logits: never more than ``chunk`` rows of them at a time, in the backward pass too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainer.statistics import statistic


def _scaled_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, inverse_temperature: float) -> Tensor:
    logits = hidden @ weight.T if bias is None else torch.addmm(bias, hidden, weight.T)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) * inverse_temperature


class _TokenStats(torch.autograd.Function):
    """Forward keeps per-row numbers only; backward rebuilds each chunk's logits.

    With ``z`` the scaled logits, ``log_p = z - lse``, ``g_l`` and ``g_H`` the incoming gradients:
    ``d/dz_a = g_l (1[a = target] - p_a) - g_H p_a (log_p_a + H)``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        inverse_temperature: float,
        chunk: int,
        names: tuple[str, ...],
    ) -> tuple[Tensor, ...]:
        rows = hidden.shape[0]
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        columns = [torch.empty(rows, dtype=dtype, device=hidden.device) for _ in range(3 + len(names))]
        logprobs, entropies, lses, *extras = columns
        for start in range(0, rows, chunk):
            part = slice(start, min(start + chunk, rows))
            z = _scaled_logits(hidden[part], weight, bias, inverse_temperature)
            lse = z.logsumexp(dim=-1)
            for name, column in zip(names, extras, strict=True):
                column[part] = statistic(name)(z, targets[part])
            logprobs[part] = z.gather(1, targets[part, None]).squeeze(1) - lse
            # -sum p log p, not lse - sum p z: the difference of two large numbers loses 25 times more in float32.
            log_p = z.sub_(lse[:, None])
            p = log_p.exp()
            # An impossible token (z = -inf) has p = 0 and must contribute 0, not 0 * inf.
            entropies[part] = -torch.where(p > 0, p.mul(log_p), torch.zeros_like(p)).sum(dim=-1)
            lses[part] = lse
        ctx.save_for_backward(hidden, weight, bias, targets, entropies, lses)
        ctx.settings = (inverse_temperature, chunk, names)
        return logprobs, entropies, *extras

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor, *grad_extras: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, entropies, lses = ctx.saved_tensors
        inverse_temperature, chunk, names = ctx.settings
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Accumulated in float32 at least: bfloat16 sums over thousands of rows would lose the small ones.
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and ctx.needs_input_grad[2] else None
        for start in range(0, hidden.shape[0], chunk):
            part = slice(start, min(start + chunk, hidden.shape[0]))
            z = _scaled_logits(hidden[part], weight, bias, inverse_temperature)
            dz = _grad_extras(z, targets[part], names, [grad[part] for grad in grad_extras])
            log_p = z.sub_(lses[part, None])
            p = log_p.exp()
            inner = (log_p + entropies[part, None]).mul_(grad_entropy[part, None]).add_(grad_logprobs[part, None])
            inner = torch.where(p > 0, inner.mul_(p), torch.zeros_like(p)).neg_()
            inner.scatter_add_(1, targets[part, None], grad_logprobs[part, None].to(inner.dtype))
            dz = (inner if dz is None else inner.add_(dz)).mul_(inverse_temperature).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(dz, weight.to(dz.dtype), out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight += dz.T @ hidden[part]
            if grad_bias is not None:
                grad_bias += dz.sum(dim=0)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *[None] * 4,
        )


def _grad_extras(logits: Tensor, targets: Tensor, names: tuple[str, ...], grads: list[Tensor]) -> Tensor | None:
    """Gradient of the asked-for statistics by their own autograd, one chunk at a time."""
    if not names or not any(bool(grad.any()) for grad in grads):
        return None
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        outputs = [statistic(name)(leaf, targets) for name in names]
        return torch.autograd.grad(outputs, leaf, grads)[0]


def token_stats(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " M"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    temperature: float = 1.0,
    statistics: Iterable[str] = (),
    chunk: int = 4096,
) -> dict[str, Float[Tensor, " M"]]:
    """Statistics of the distribution ``softmax(hidden @ weight.T / temperature)`` at M positions.

    Returns ``logprobs`` (of ``targets``, nats), ``entropy`` (full vocabulary, nats) and every name in ``statistics``,
    each [M], float32 or wider, all differentiable with respect to ``hidden``, ``weight`` and ``bias``. Logits exist
    for ``chunk`` rows at a time: extra memory is ``chunk * V`` floats a few times over, whatever M is.

    Raises ``KeyError`` for a statistic that is not in :data:`trainer.statistics.STATISTICS`.
    """
    assert hidden.ndim == 2 and weight.ndim == 2 and targets.shape == hidden.shape[:1]
    names = tuple(sorted(statistics))
    for name in names:
        statistic(name)
    logprobs, entropies, *extras = _TokenStats.apply(hidden, weight, bias, targets, 1.0 / temperature, chunk, names)
    return {"logprobs": logprobs, "entropy": entropies} | dict(zip(names, extras, strict=True))
