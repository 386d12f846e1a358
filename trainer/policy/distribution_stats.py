"""Statistics of next-token distributions that components ask for by name, as pure functions of scaled logits.

A name may carry numbers: ``"top_p_entropy@0.8"`` is ``top_p_entropy(logits, targets, 0.8)``. Gradients are
autograd's; a part without gradient is detached here. ``logits`` have been divided by ``temperature``: what is said
to be at temperature 1 multiplies by it again. For numerical stability logits are subtracted from
the largest logit only: at 10^4 any other difference of two large numbers would be rounding error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Statistic = Callable[[Float[Tensor, "M V"], Int[Tensor, " M"]], Float[Tensor, " M"]]

MAX_NUCLEUS = 10_000
"""Candidates of a nucleus: sorting a large vocabulary whole would cost more than the forward pass."""


def log_p_and_p(logits: Float[Tensor, "M V"]) -> tuple[Float[Tensor, "M V"], Float[Tensor, "M V"]]:
    """Log-probs with 0 where the probability is 0, and probabilities: their products are 0 there, and so is every
    gradient (choosing 0 after the product would leave 0 * inf in the backward pass)."""
    log_p = logits.log_softmax(dim=-1)
    p = log_p.exp()
    return log_p.masked_fill(p == 0, 0.0), p


def entropy(logits: Float[Tensor, "M V"]) -> Float[Tensor, " M"]:
    """``H = -sum_a p_a log p_a`` in nats, with ``p = softmax(logits)``; safe where some logits are -inf."""
    log_p, p = log_p_and_p(logits)
    return -(p * log_p).sum(dim=-1)


ENTROPY_T1 = "entropy_t1"
"""Name of :func:`entropy_t1`, which :class:`trainer.policy.policy.Policy` does not compute twice at temperature 1."""


def entropy_t1(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], *, temperature: float = 1.0
) -> Float[Tensor, " M"]:
    """:func:`entropy` of the model's own distribution, in nats at temperature 1: what runs and steps that sample at
    different temperatures can be compared by. From the same logits, ``logits * temperature``."""
    return entropy(_own(logits, temperature))


SUM_P2 = "sum_p2"
"""Name of :func:`sum_p2`, of which ``policy/renyi2_entropy`` is made where a member asks for it."""


def _own(logits: Float[Tensor, "M V"], temperature: float) -> Float[Tensor, "M V"]:
    return logits if temperature == 1 else logits * temperature


def sum_p2_logp_h(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], *, temperature: float = 1.0
) -> Float[Tensor, " M"]:
    """``sum_a p_a^2 (log p_a + H)``: the sampling-independent part of the exact first-order entropy change
    (specification 5), nats. The definition: ``token_stats.py`` makes it from sums over tiles."""
    log_p, p = log_p_and_p(logits)
    return (p * p * (log_p - (p * log_p).sum(dim=-1, keepdim=True))).sum(dim=-1)


def sum_p2(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], *, temperature: float = 1.0
) -> Float[Tensor, " M"]:
    """``sum_a p_a^2``: the chance that two samples agree; minus its logarithm is the Renyi entropy of order 2, nats.
    The definition: ``token_stats.py`` makes it from sums over tiles."""
    return log_p_and_p(logits)[1].square().sum(dim=-1)


def tempered_logprobs(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], factor: float, *, temperature: float = 1.0
) -> Float[Tensor, " M"]:
    """Log-prob of the target if the temperature were ``factor`` times what it is, nats."""
    return (_below_top(logits) / factor).log_softmax(dim=-1).gather(1, targets[:, None]).squeeze(1)


def top_k_logprobs(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], count: float, *, temperature: float = 1.0
) -> Float[Tensor, " M"]:
    """Mean log-prob of the ``count`` likeliest tokens, nats; of all that are possible where these are fewer. Which
    these are has no gradient."""
    ranked = _ranked(logits, count)
    possible = ranked > -torch.inf
    total = ranked.masked_fill(~possible, 0.0).sum(dim=-1)
    return total / possible.sum(dim=-1) - _below_top(logits).logsumexp(dim=-1)


def top_k_mass(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], count: float, *, temperature: float = 1.0
) -> Float[Tensor, " M"]:
    """Probability of the ``count`` likeliest tokens together."""
    return (_ranked(logits, count).logsumexp(dim=-1) - _below_top(logits).logsumexp(dim=-1)).exp()


def _ranked(logits: Tensor, count: float) -> Tensor:
    """The ``count`` largest of each row, minus the largest."""
    return _below_top(logits).topk(min(int(count), logits.shape[-1]), dim=-1).values


def top_p_entropy(
    logits: Float[Tensor, "M V"],
    targets: Int[Tensor, " M"],
    top_p: float,
    include_crossing: float = 0,
    *,
    temperature: float = 1.0,
) -> Float[Tensor, " M"]:
    """Entropy at temperature 1 of the distribution renormalised over its nucleus, nats; 0 where the nucleus is empty.

        mass_j  = sum of the probabilities of ranks 0 to j                     (ranks from the likeliest token down)
        nucleus = ranks with mass_j < top_p,   or with mass_{j-1} < top_p if include_crossing
        value   = -sum_nucleus q log q,    q = p / sum_nucleus p

    The token that crosses ``top_p`` stays out unless ``include_crossing`` is 1, so a token of probability ``top_p`` or
    more leaves nothing. Only the likeliest :data:`MAX_NUCLEUS` tokens are looked at. ``top_p`` above 1 keeps them all.
    The choice of the nucleus has no gradient; q has (specification 4).
    """
    logits = _own(logits, temperature)
    ranked = logits.topk(min(MAX_NUCLEUS, logits.shape[-1]), dim=-1).values
    with torch.no_grad():
        top = ranked[:, :1]
        p = (ranked - top - (logits - top).logsumexp(dim=-1, keepdim=True)).exp()
        mass = p.cumsum(dim=-1)
        outside = (mass - p if include_crossing else mass) >= top_p
        empty = outside[:, 0]
        outside = outside & ~empty[:, None]  # any finite entropy will do there: it is replaced by 0
    return torch.where(empty, 0.0, entropy(ranked.masked_fill(outside, -torch.inf)))


def min_p_logmass(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], min_p: float, *, temperature: float = 1.0
) -> Float[Tensor, " M"]:
    """``log sum_kept p`` in nats, at most 0: the probability of all tokens that :func:`min_p_kept` keeps.

    With the proxy ``q = p / sum_kept p`` on the kept tokens, ``KL(q || p) = -min_p_logmass``, and so is its gradient
    with q held fixed: ``d/dz_a = p_a - q_a`` (specification 14.2). ``min_p = 0`` keeps all and gives exactly 0.
    """
    gaps = _below_top(logits)
    barred = ~_survives(gaps, min_p, temperature)
    return gaps.masked_fill(barred, -torch.inf).logsumexp(dim=-1) - gaps.logsumexp(dim=-1)


def min_p_kept(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], min_p: float, *, temperature: float = 1.0
) -> Float[Tensor, " M"]:
    """1 where the target's probability *at temperature 1* is at least ``min_p`` times the largest, else 0; no gradient.

    Lp-Reg's code filters the model's own logits and divides what is left by the temperature (specification 14.2).
    """
    gaps = _below_top(logits.detach()).gather(1, targets[:, None]).squeeze(1)
    return _survives(gaps, min_p, temperature).to(logits.dtype)


def _below_top(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
    return logits - logits.detach().amax(dim=-1, keepdim=True)


def _survives(gaps: Tensor, min_p: float, temperature: float) -> Tensor:
    return gaps * temperature >= (math.log(min_p) if min_p else -torch.inf)


STATISTICS: dict[str, Callable[..., Tensor]] = {
    ENTROPY_T1: entropy_t1,
    "min_p_kept": min_p_kept,
    "min_p_logmass": min_p_logmass,
    SUM_P2: sum_p2,
    "sum_p2_logp_h": sum_p2_logp_h,
    "tempered_logprobs": tempered_logprobs,
    "top_k_logprobs": top_k_logprobs,
    "top_k_mass": top_k_mass,
    "top_p_entropy": top_p_entropy,
}
"""By name; each maps scaled logits [M, V] (float32, nats), targets [M], the numbers of its name and the temperature to
one number per row."""


def statistic(name: str, temperature: float = 1.0) -> Statistic:
    """The function behind ``name``, of logits divided by ``temperature``; raises ``KeyError`` when there is none."""
    base, *numbers = name.split("@")
    function, values = STATISTICS[base], [float(number) for number in numbers]
    return lambda logits, targets: function(logits, targets, *values, temperature=temperature)
