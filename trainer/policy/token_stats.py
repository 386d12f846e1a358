"""Log-prob, entropy and other statistics of chosen tokens, from hidden states, in one tiled pass with a hand-written
backward.

This is the one place where the temperature is applied, and the one place that ever sees logits: one tile of them at
a time, in the backward pass too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainer.policy.cpu_matmul import matmul
from trainer.policy.distribution_stats import entropy, statistic

TILE = {"cpu": 2**21, "cuda": 2**26}
"""Logits in one tile. On a CPU 8 MiB in float32, so that every pass after the matrix product stays in the cache; on a
GPU enough for each kernel to fill it."""

MIN_SIDE = 64
"""Rows or columns of the thinnest tile: a thinner one would leave the matmuls waiting for memory."""

ROWS_ADDED = 4096
"""Rows of a gradient that are made at one time before they are added."""

TILED = ("sum_p2", "sum_p2_logp_h")
"""Statistics that are functions of sums over the vocabulary, so that they need no whole rows."""


def _tile(rows: int, vocabulary: int, chunk: int, device: torch.device, *, whole_rows: bool) -> tuple[int, int]:
    """(rows, columns) of the logits that exist at one time; statistics of the whole distribution need whole rows."""
    budget, height = TILE.get(device.type, TILE["cuda"]), max(1, min(rows, chunk))
    if whole_rows:
        return min(height, max(MIN_SIDE, budget // vocabulary)), vocabulary
    return height, min(vocabulary, max(MIN_SIDE, budget // height))


def _spans(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _scaled_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, inverse_temperature: float, columns: slice
) -> Tensor:
    weight = weight[columns]
    logits = matmul(hidden, weight.T) if bias is None else torch.addmm(bias[columns], hidden, weight.T)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).mul_(inverse_temperature)


def _exp(shifted: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` (clamped in place) and ``exp(x)`` for ``x <= 0``; what lies below the smallest normal number becomes 0.

    An impossible token (-inf) must contribute 0, not ``0 * inf``, and exp is 15 times slower where it underflows.
    """
    tiny = torch.finfo(shifted.dtype).tiny
    shifted.clamp_(min=math.log(2 * tiny))
    return shifted, torch.threshold_(shifted.exp(), 4 * tiny, 0.0)


def _find(targets: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Where each target is among the columns [m, 1], and whether it is there at all."""
    index = targets[:, None] - columns.start
    width = columns.stop - columns.start
    return index.clamp(0, width - 1), (index >= 0) & (index < width)


def _accumulate(total: Tensor, left: Tensor, right: Tensor, *, once: bool) -> None:
    """``total += left @ right`` in the type of ``total``. The product of half-precision factors is not rounded before
    it is added, unless it is the only one that is: then a CPU makes it twice as fast."""
    if total.is_cuda and right.dtype != total.dtype:
        torch.addmm(total, left.to(right.dtype), right, out_dtype=total.dtype, out=total)
    elif total.is_cpu:
        kept = right.dtype if once and right.dtype == torch.bfloat16 else total.dtype
        left, right = left.to(kept), right.to(kept)
        for part in _spans(total.shape[0], ROWS_ADDED):  # oneDNN adds nowhere: what it makes is memory of its own
            total[part] += matmul(left[part], right)
    else:
        total.addmm_(left, right.to(total.dtype))


def _gradient(z: Tensor, rows: tuple[Tensor, ...], columns: slice, grads: list[Tensor | None]) -> Tensor:
    """``d/dz`` of log-prob, entropy and :data:`TILED` on one tile (see :class:`_TokenStats`); overwrites ``z``."""
    targets, top, mass, entropy, tiled, squares = rows
    grad_logprobs = grads[0]
    # With e = exp(z - top): p = e / mass, and the division is left to the factors, which are one number a row.
    own_logprobs, own_entropy, own_squares, own_tiled = (
        None if grad is None else (grad / mass)[:, None] for grad in grads
    )
    shifted, dz = _exp(z.sub_(top[:, None]))
    to_f = (entropy - mass.log())[:, None]
    factor = torch.zeros((), dtype=z.dtype, device=z.device)
    if own_tiled is not None:
        f = shifted + to_f
        factor = (dz / mass[:, None]).mul_(1 + 2 * f).sub_(f.add_(1).mul_(squares[:, None])).sub_(2 * tiled[:, None])
        factor.mul_(own_tiled)
    if own_squares is not None:
        factor = factor + (dz / mass[:, None]).sub_(squares[:, None]).mul_(2 * own_squares)
    if own_entropy is not None:
        of_entropy = shifted.add_(to_f).mul_(-own_entropy)
        factor = of_entropy if factor.ndim == 0 else factor.add_(of_entropy)
    if own_logprobs is not None:
        factor = factor - own_logprobs if factor.ndim == 0 else factor.sub_(own_logprobs)
    dz.mul_(factor)
    if grad_logprobs is not None:
        index, here = _find(targets, columns)
        dz.scatter_add_(1, index, torch.where(here, grad_logprobs[:, None], 0.0))
    return dz


class _TokenStats(torch.autograd.Function):
    """Forward keeps per-row numbers only; backward rebuilds each tile of logits.

    With ``z`` the scaled logits, ``top`` the largest of them, ``mass = sum exp(z - top)``,
    ``log_p = (z - top) - log(mass)``, ``f = log_p + H``, ``Q = sum p^2``, ``S = sum p^2 f``, and ``g_l``, ``g_H``,
    ``g_Q``, ``g_S`` the incoming gradients:
    ``d/dz_a = g_l (1[a = target] - p_a) - g_H p_a f_a + 2 g_Q p_a (p_a - Q)
    + g_S p_a (p_a (1 + 2 f_a) - Q (1 + f_a) - 2 S)``.
    ``top + log(mass)`` is never made: at logits near 10^4 its rounding would move every log-prob by 5e-4.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk: int,
        names: tuple[str, ...],
        with_tiled: bool,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        rows, vocabulary = hidden.shape[0], weight.shape[0]
        height, width = _tile(rows, vocabulary, chunk, hidden.device, whole_rows=bool(names))
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        results = [torch.zeros(rows, dtype=dtype, device=hidden.device) for _ in range(6 + len(names))]
        logprobs, entropies, tiled, tops, masses, squares, *extras = results
        for part in _spans(rows, height):
            # Over the columns so far: the largest z, z of the target, and with e = exp(z - top) the sums of e,
            # e (z - top), e^2 and e^2 (z - top).
            top = torch.full_like(tops[part], torch.finfo(dtype).min)
            chosen, mass, moment, mass2, moment2 = (torch.zeros_like(top) for _ in range(5))
            for columns in _spans(vocabulary, width):
                z = _scaled_logits(hidden[part], weight, bias, 1 / temperature, columns)
                for name, column in zip(names, extras, strict=True):
                    function = statistic(name, temperature)
                    column[part] = torch.cat([function(*few) for few in _few_rows(z, targets[part])])
                index, here = _find(targets[part], columns)
                chosen = torch.where(here, z.gather(1, index), chosen[:, None]).squeeze(1)
                before, top = top, torch.maximum(top, z.amax(dim=-1))
                drop = before - top
                shifted, e = _exp(z.sub_(top[:, None]))
                moment = (moment + mass * drop) * drop.exp() + shifted.mul_(e).sum(dim=-1)
                mass = mass * drop.exp() + e.sum(dim=-1)
                if with_tiled:
                    moment2 = (moment2 + mass2 * drop) * (2 * drop).exp() + shifted.mul_(e).sum(dim=-1)
                    mass2 = mass2 * (2 * drop).exp() + e.mul_(e).sum(dim=-1)
            tops[part], masses[part] = top, mass
            logprobs[part] = (chosen - top) - mass.log()
            # Both terms are small beside the largest logit; lse - sum p z would lose 25 times more in float32.
            entropies[part] = mass.log() - moment / mass
            squares[part] = mass2 / mass**2
            tiled[part] = moment2 / mass**2 - squares[part] * moment / mass
        ctx.save_for_backward(hidden, weight, bias, targets, tops, masses, entropies, tiled, squares)
        ctx.settings = (temperature, height, width, names)
        return logprobs, entropies, *((squares, tiled) if with_tiled else (None, None)), *extras

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, *by_row = ctx.saved_tensors
        temperature, height, width, names = ctx.settings
        # Accumulated in float32 at least: bfloat16 sums over thousands of rows would lose the small ones. The weight's
        # gradient is the largest of all, so columns come first, and only those at hand are wide.
        wide = by_row[-1].dtype
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(value, dtype=value.dtype if value is weight else wide) if needed else None
            for value, needed in zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
        )
        tiles, parts = _spans(weight.shape[0], width), _spans(hidden.shape[0], height)
        for columns in tiles:
            of_weight = None if grad_weight is None else grad_weight[columns].to(wide)
            for part in parts:
                own = tuple(value[part] for value in by_row)
                rows = [None if grad is None else grad[part] for grad in grads]
                z = _scaled_logits(hidden[part], weight, bias, 1 / temperature, columns)
                extra = _grad_extras(z, own[0], names, temperature, rows[4:])
                dz = _gradient(z, own, columns, rows[:4])
                if extra is not None:
                    dz += extra
                dz *= 1 / temperature
                if grad_hidden is not None:
                    _accumulate(grad_hidden[part], dz, weight[columns], once=len(tiles) == 1)
                if of_weight is not None:
                    _accumulate(of_weight, dz.T, hidden[part], once=len(parts) == 1)
                if grad_bias is not None:
                    grad_bias[columns] += dz.sum(dim=0)
            if grad_weight is not None and of_weight is not None and grad_weight.dtype != wide:
                grad_weight[columns] = of_weight
        narrow = [
            None if total is None else total.to(x.dtype)
            for total, x in zip((grad_hidden, grad_weight, grad_bias), (hidden, weight, bias), strict=True)
        ]
        return *narrow, None, None, None, None, None


def _few_rows(z: Tensor, *columns: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Rows of a tile, and of what goes with it, in chunks that stay in the cache with all a statistic makes of
    them."""
    few = max(1, TILE.get(z.device.type, TILE["cuda"]) // 16 // z.shape[1])
    return zip(*(value.split(few) for value in (z, *columns)), strict=True)


def _grad_extras(
    z: Tensor, targets: Tensor, names: tuple[str, ...], temperature: float, grads: list[Tensor | None]
) -> Tensor | None:
    """Gradient of the asked-for statistics by their own autograd, a few rows at a time."""
    wanted = [(statistic(name, temperature), grad) for name, grad in zip(names, grads, strict=True) if grad is not None]
    if not wanted:
        return None
    total = torch.empty_like(z)
    for few, target, into, *rows in _few_rows(z, targets, total, *(grad for _, grad in wanted)):
        with torch.enable_grad():
            leaf = few.detach().requires_grad_()
            outputs = [function(leaf, target) for function, _ in wanted]
        pairs = [(output, row) for output, row in zip(outputs, rows, strict=True) if output.requires_grad]
        into.copy_(_summed_gradient(pairs, leaf))
    return total


def _summed_gradient(pairs: list[tuple[Tensor, Tensor]], leaf: Tensor) -> Tensor:
    """Gradient of outputs, each with its incoming one; a statistic may have none at all."""
    if not pairs:
        return torch.zeros_like(leaf)
    outputs, incoming = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, leaf, incoming)[0]


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
    for at most ``chunk`` rows, and about :data:`TILE` numbers, at a time: that is the extra memory, a few times over,
    whatever M and V are. ``statistics`` outside :data:`TILED` take whole rows, so then it is at least ``MIN_SIDE * V``,
    some more times over.

    Raises ``KeyError`` for a statistic that is not in :data:`trainer.policy.distribution_stats.STATISTICS`.
    """
    assert hidden.ndim == 2 and weight.ndim == 2 and targets.shape == hidden.shape[:1]
    names = tuple(sorted(statistics))
    for name in names:
        statistic(name)
    whole = tuple(name for name in names if name not in TILED)
    logprobs, entropies, *more = _TokenStats.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, temperature, chunk, whole, len(whole) < len(names)
    )
    sums, extras = dict(zip(TILED, more, strict=False)), more[len(TILED) :]
    found = {"logprobs": logprobs, "entropy": entropies} | {name: sums[name] for name in names if name in TILED}
    return found | dict(zip(whole, extras, strict=True))


def plain_token_stats(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " M"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    temperature: float = 1.0,
    statistics: Iterable[str] = (),
    chunk: int = 4096,
) -> dict[str, Float[Tensor, " M"]]:
    """:func:`token_stats` by elementary operators on whole rows of logits, a few rows at a time: slower, and
    differentiable in forward mode. Same units: nats where it has them."""
    names = tuple(sorted(statistics))
    height = _tile(hidden.shape[0], weight.shape[0], chunk, hidden.device, whole_rows=True)[0]
    parts: dict[str, list[Tensor]] = {name: [] for name in ("logprobs", "entropy", *names)}
    for part in _spans(hidden.shape[0], height) or [slice(0, 0)]:
        logits = nn.functional.linear(hidden[part], weight, bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        parts["logprobs"].append(logits.log_softmax(dim=-1).gather(1, targets[part, None]).squeeze(1))
        parts["entropy"].append(entropy(logits))
        for name in names:
            parts[name].append(statistic(name, temperature)(logits, targets[part]))
    return {name: torch.cat(values) for name, values in parts.items()}
