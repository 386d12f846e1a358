"""Statistics of next-token distributions that components ask for by name, as pure functions of scaled logits.

Called by ``token_stats.py``, a chunk of rows at a time. A name may carry numbers: ``"top_p_entropy@0.8"`` is
``top_p_entropy(logits, targets, 0.8)``. Gradients are autograd's; a part without gradient is detached here.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

Statistic = Callable[[Float[Tensor, "M V"], Int[Tensor, " M"]], Float[Tensor, " M"]]


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


def sum_p2_logp_h(logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """``sum_a p_a^2 (log p_a + H)``: the sampling-independent part of the exact first-order entropy change
    (METHODS.md 5)."""
    log_p, p = log_p_and_p(logits)
    return (p * p * (log_p - (p * log_p).sum(dim=-1, keepdim=True))).sum(dim=-1)


STATISTICS: dict[str, Callable[..., Tensor]] = {"sum_p2_logp_h": sum_p2_logp_h}
"""By name; each maps scaled logits [M, V] (float32, nats), targets [M] and the numbers of its name to one number per
row."""


def statistic(name: str) -> Statistic:
    """The function behind ``name``; raises ``KeyError`` when there is none."""
    base, *numbers = name.split("@")
    function, values = STATISTICS[base], [float(number) for number in numbers]
    return lambda logits, targets: function(logits, targets, *values)
