"""Token influence: what each response token's own gradient did to the entropy of the policy, to first order
(specification 15.6).

With ``g_H`` the gradient of the mean entropy of a fixed set of contexts, ``P`` the diagonal by which the optimiser
multiplies this update's gradient (gradient clipping included) and ``l_i`` token i's contribution to the loss as it is
applied (advantage, weights, clipping, its share of the denominator)::

    I_i = -g_H . P grad l_i        nats; minus the derivative of l_i along P g_H

so one forward-mode pass gives every token's influence. First the terms are differentiated along ``P g_H``, which may
be done by differences; then the loss along those, always exactly, so that what a method detaches stays detached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.ledger.tangents import along_terms
from trainer.metrics import estimators
from trainer.metrics.accounting import SUM_P2_LOGP_H
from trainer.objective.objective import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfluence:
    """The response tokens of one update, flat; every field [M], detached, on the CPU, at the weights of the update."""

    influence: Float[Tensor, " M"]
    """I_i of the policy term, nats of the mean entropy."""
    coefficient: Float[Tensor, " M"]
    """``-d loss / d log p_i`` times the number of tokens: what really multiplied the gradient of the token's log-prob
    (advantage, ratio, weights, clipping, reduction), in units of the advantage."""
    advantage: Float[Tensor, " M"]
    """As the advantage member made it."""
    ratio: Float[Tensor, " M"]
    """Importance ratio."""
    logprobs: Float[Tensor, " M"]
    """log p of the sampled token, nats."""
    entropy: Float[Tensor, " M"]
    """Full-vocabulary entropy, nats."""
    sum_p2_logp_h: Float[Tensor, " M"]
    """sum_a p_a^2 (log p_a + H), nats."""
    position: Float[Tensor, " M"]
    """Place in the response, from 0 (first token) to below 1."""
    row: Int[Tensor, " M"]
    """Row of the mini-batch."""
    group: Int[Tensor, " M"]
    """Prompt of the step."""
    share: float
    """Tokens of the mini-batch for each of these (1: all of them): sums are multiplied by it."""


def effective_coefficients(
    objective: Objective, values: TokenTerms, rows: TokenBatch, scale: Float[Tensor, "N 1"]
) -> Float[Tensor, "N T"]:
    """``-d (policy loss) / d log p`` of every token: the factor on the gradient of its log-prob, whatever made it.
    Units of the loss per nat."""
    with torch.enable_grad():
        logprobs = values.logprobs.detach().requires_grad_()
        terms = TokenTerms(logprobs=logprobs, entropy=values.entropy, extras=values.extras)
        losses, _ = objective.token_losses(terms, rows, scale)
        total = losses["policy"].sum()
        if not total.requires_grad:
            return torch.zeros_like(values.logprobs)
        return -torch.autograd.grad(total, logprobs)[0]


def token_influence(
    objective: Objective,
    values: TokenTerms,
    slopes: TokenTerms,
    rows: TokenBatch,
    scale: Float[Tensor, "N 1"],
    *,
    share: float = 1.0,
) -> tuple[TokenInfluence, dict[str, float]]:
    """Influence of the tokens of ``rows``, and what each member of the loss did to the entropy in all, nats.

    ``values`` and ``slopes`` are the terms and their derivatives along ``P g_H``.
    """
    derivatives = along_terms(lambda terms: objective.token_losses(terms, rows, scale)[0], values, slopes)
    members = {name: -share * float(part.double().sum()) for name, part in derivatives.items()}
    mask, tokens = rows.mask, max(rows.num_tokens * share, 1)
    assert rows.advantages is not None and rows.old_logprobs is not None
    numbers = torch.arange(rows.num_rows)[:, None].expand(mask.shape)
    order = mask.cumsum(dim=1) - 1
    flat = TokenInfluence(
        influence=-derivatives["policy"][mask],
        coefficient=effective_coefficients(objective, values, rows, scale)[mask] * tokens,
        advantage=rows.advantages[mask],
        ratio=estimators.importance_ratio(values.logprobs, rows.old_logprobs)[mask],
        logprobs=values.logprobs[mask],
        entropy=values.entropy[mask],
        sum_p2_logp_h=values.extras[SUM_P2_LOGP_H][mask],
        position=(order / mask.sum(dim=1, keepdim=True).clamp(min=1))[mask],
        row=numbers[mask],
        group=rows.group[:, None].expand(mask.shape)[mask],
        share=share,
    )
    return flat, members


def quadrants(tokens: TokenInfluence) -> dict[str, Bool[Tensor, " M"]]:
    """:func:`trainer.metrics.estimators.quadrants` by the sign of the *effective* coefficient; ``neutral`` where the
    loss gave the token no gradient (clipped, weight 0, advantage 0). Masks, dimensionless."""
    return estimators.quadrants(tokens.coefficient, tokens.logprobs, tokens.entropy)


def deciles(values: Float[Tensor, " M"]) -> list[Bool[Tensor, " M"]]:
    """Ten masks of a tenth of the tokens each, from the smallest value up, in any units; ties stay in their order."""
    ranks = values.argsort(stable=True).argsort(stable=True)
    return [(ranks * 10 // max(len(values), 1)) == number for number in range(10)]


def tenths(position: Float[Tensor, " M"]) -> list[Bool[Tensor, " M"]]:
    """Ten masks: which tenth of its response a token is in, from its dimensionless position in [0, 1]."""
    number = (position * 10).floor().clamp(max=9)
    return [number == tenth for tenth in range(10)]


ESTIMATORS: Mapping[str, Callable[[TokenInfluence], Float[Tensor, " M"]]] = {
    "covariance": lambda t: -estimators.covariance(t.logprobs, t.coefficient),
    "steer_published": lambda t: estimators.steer(t.coefficient, t.logprobs, t.entropy),
    "steer_released": lambda t: estimators.steer(t.ratio * t.advantage, t.logprobs, t.entropy),
    "exact": lambda t: estimators.exact(t.coefficient, t.logprobs, t.entropy, t.sum_p2_logp_h),
    "advantage": lambda t: -t.coefficient,
    "probability": lambda t: -t.logprobs.exp(),
    "surprisal": lambda t: -t.coefficient * t.logprobs,
}
"""What papers say a token does to the entropy, up to a factor; positive raises it. ``covariance``: minus the centred
product of log p and coefficient (arXiv 2505.22617). ``steer_*``: ``-c (1 - p)(log p + H)`` with the effective
coefficient, or with ratio times advantage as in the released code (arXiv 2510.10150). ``exact``: the tabular softmax's
first order ``-c [p (log p + H) - sum_a p_a^2 (log p_a + H)]`` (arXiv 2602.03392). ``advantage``: ``-c``;
``probability``: ``-p``; ``surprisal``: ``-c log p``."""


def contest(updates: Iterable[TokenInfluence]) -> dict[str, float]:
    """Correlation of each of :data:`ESTIMATORS` with the influence, over the tokens of a step; a name is left out
    where one of the two does not vary."""
    parts = list(updates)
    measured = torch.cat([part.influence.double() for part in parts])
    correlations = {}
    for name, estimate in ESTIMATORS.items():
        values = torch.cat([estimate(part).double() for part in parts])
        correlation = estimators.pearson(values, measured)
        if not math.isnan(correlation):
            correlations[name] = correlation
    return correlations
