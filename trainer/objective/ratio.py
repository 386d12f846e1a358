"""The importance ratio of a token, shared by surrogates and weights. A pure function; it must not know any method."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this before exponentiation, as in verl; exp(20) is 5e8."""


def importance_ratio(logprobs: Float[Tensor, "N T"], old_logprobs: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """``ratio = exp(clamp(logprobs - old_logprobs, -20, 20))``; no gradient beyond the clamp."""
    return (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
