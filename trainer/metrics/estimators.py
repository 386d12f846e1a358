"""Ratios and divergences of two policies on sampled tokens, and published estimators of a token's effect on the
entropy: one definition and one sign of each.

Pure functions; they must not know any method.

``log_ratio = log q - log p`` is always the policy ``q`` in question minus the policy ``p`` that the tokens were sampled
from (Schulman, "Approximating KL divergence"); the estimators of ``KL(p || q)`` are functions of it alone, and the
importance ratio is its exponential.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this before exponentiation, as in verl; exp(20) is 5e8."""
MAX_K3 = 10.0
"""Regularizers clamp k3 of a token to this, as verl does; beyond it there is no gradient."""


def bounded(log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``clamp(log_ratio, -20, 20)``, nats; no gradient beyond the clamp."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def importance_ratio(
    logprobs: Float[Tensor, "*shape"], old_logprobs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """``ratio = exp(clamp(logprobs - old_logprobs, -20, 20))``, dimensionless; no gradient beyond the clamp."""
    return bounded(logprobs - old_logprobs).exp()


def k1(log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``-log_ratio``: unbiased for ``KL(p || q)``, of either sign, nats; not clamped."""
    return -log_ratio


def k2(log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log_ratio^2 / 2``: biased, but its expected gradient is that of the divergence, nats; not clamped."""
    return log_ratio * log_ratio / 2


def k3(log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``exp(d) - 1 - d`` with ``d = clamp(log_ratio, -20, 20)``: unbiased and never negative, nats.

    By ``expm1``, so that small ones keep their digits: at d = 1e-4 float32 would lose all of 5e-9.
    """
    d = bounded(log_ratio)
    return torch.expm1(d) - d


def covariance(logprobs: Float[Tensor, " M"], advantages: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """``(logprobs - mean logprobs) (advantages - mean advantages)``: each token's share of the covariance.

    Positive where a likely token gains or an unlikely one loses, which lowers entropy: to first order the change of
    entropy is minus a step size times this (arXiv 2505.22617; specification 3.2). Nats times units of the advantage.
    """
    return (logprobs - logprobs.mean()) * (advantages - advantages.mean())


def steer(
    push: Float[Tensor, " M"], logprobs: Float[Tensor, " M"], entropy: Float[Tensor, " M"], *, power: float = 1.0
) -> Float[Tensor, " M"]:
    """``-push (1 - p)^power (log p + H)``: STEER's change of entropy (arXiv 2510.10150; specification 5), nats times
    units of ``push``, the factor on the gradient of the token's log-prob."""
    return -push * ((-torch.expm1(logprobs)).clamp(min=0.0) ** power * (logprobs + entropy))


def exact(
    push: Float[Tensor, " M"],
    logprobs: Float[Tensor, " M"],
    entropy: Float[Tensor, " M"],
    sum_p2_logp_h: Float[Tensor, " M"],
) -> Float[Tensor, " M"]:
    """``-push [p_k (log p_k + H) - sum_a p_a^2 (log p_a + H)]``, k the sampled token: the exact first order of H under
    logits ``z += eta push (onehot_k - p)``, over eta (arXiv 2602.03392; specification 5); nats times units of
    ``push``."""
    return -push * (logprobs.exp() * (logprobs + entropy) - sum_p2_logp_h)


def quadrants(
    push: Float[Tensor, " M"], logprobs: Float[Tensor, " M"], entropy: Float[Tensor, " M"]
) -> dict[str, Bool[Tensor, " M"]]:
    """Masks that cover every token once: sign of ``push`` x likely (log p >= -H) or unlikely; ``neutral`` where 0.

    A certain token (log p = 0 = H) is likely. Log-probs and entropies in nats, ``push`` in any units.
    """
    likely = logprobs >= -entropy
    up, down = push > 0, push < 0
    return {
        "positive_likely": up & likely,
        "positive_unlikely": up & ~likely,
        "negative_likely": down & likely,
        "negative_unlikely": down & ~likely,
        "neutral": ~(up | down),
    }


def pearson(first: Float[Tensor, " M"], second: Float[Tensor, " M"]) -> float:
    """Correlation, dimensionless; nan if one does not vary."""
    x, y = first - first.mean(), second - second.mean()
    power = float(x @ x) * float(y @ y)
    return float(x @ y) / math.sqrt(power) if power > 0 else math.nan
