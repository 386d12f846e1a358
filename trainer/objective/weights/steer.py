"""STEER: less weight on tokens that are about to change the entropy much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Weight

TINY = 1e-8
"""Probabilities are kept this far from 0 and 1, as in the authors' code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steer(Weight):
    """A weight that falls with the first-order entropy change of the token.

        published   change = ratio * advantages * (1 - p)^power * (log p + H)
        released    change = ratio * advantages * (1 - p)^power * (log p + H_old)
        exact       change = ratio * advantages * (p (log p + H) - sum_a p_a^2 (log p_a + H))
        exponential weight = exp(log(weight_min) * |change| / max(floor, max |change|)),   within [weight_min, 1]
        linear      weight = linear_high - (linear_high - linear_low) (|change| - min) / (max - min)

    ``p`` is the current probability of the sampled token, ``H`` the current full-vocabulary entropy, ``H_old`` that of
    the sampling policy, ``ratio = p / p_old``; ``power`` is ``one_minus_pi_power``. Minimum and maximum run over the
    mini-batch's tokens. With ``clip_indicator`` the change of a token that the surrogate clips is 0. Where all changes
    are equal the linear weight is the middle of its range. ``exact`` is the derivative of H for a tabular softmax whose
    logits take a policy-gradient step on the sampled token, over minus the step size. Neutral: all weights 1.

    Shape [N, T]; weight dimensionless, change in nats times units of the advantage.
    """

    about: ClassVar[About] = About(
        source=(
            "STEER, arXiv 2510.10150, read through its abstracts, an excerpt and reviews; the authors' "
            "compute_token_weights, whose settings are method=steer_released"
        ),
        status="published",
        departures=(
            "maxima over the mini-batch instead of a micro-batch; p and p_old are kept within [1e-8, 1 - 1e-8] as in "
            "the released code, in every estimator; the power of (1 - p) in the paper's theorem could not be verified; "
            "the exact estimator is this project's"
        ),
        released={"estimator": "released"},
    )

    needs_current: ClassVar[bool] = True
    needs_old: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"weight_min": 1.0, "linear_low": 1.0, "linear_high": 1.0}

    mode: Literal["exponential", "linear"] = "exponential"
    """How the weight falls."""
    estimator: Literal["published", "released", "exact"] = "published"
    """How the entropy change of a token is estimated."""
    weight_min: float = 0.7
    """Exponential: weight of the token of largest change (lambda_min). The release script has 0.8."""
    floor: float = 0.0
    """Exponential: changes are measured against at least this, so that small ones leave weights near 1; released:
    0.02."""
    linear_low: float = 0.8
    """Linear: weight of the token of largest change."""
    linear_high: float = 1.2
    """Linear: weight of the token of smallest change."""
    clip_indicator: bool = True
    """Tokens without gradient change nothing (paper); the released code leaves this out."""
    one_minus_pi_power: float = 1.0
    """Power of (1 - p) in the published and released estimators."""

    def __post_init__(self) -> None:
        require(0 < self.weight_min <= 1, "weight.steer.weight_min", self.weight_min, "a weight above 0 and up to 1")
        require(self.floor >= 0, "weight.steer.floor", self.floor, "give a number of at least 0")
        require(
            0 <= self.linear_low <= self.linear_high,
            "weight.steer.linear_low",
            self.linear_low,
            f"give at least 0 and at most weight.steer.linear_high={self.linear_high}",
        )
        power = self.one_minus_pi_power
        require(power >= 0, "weight.steer.one_minus_pi_power", power, "give a power of at least 0")

    @property
    def statistics(self) -> frozenset[str]:
        return frozenset({"sum_p2_logp_h"} if self.estimator == "exact" else ())

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        assert terms is not None
        weight = torch.ones_like(terms.logprobs)
        if not bool(batch.mask.any()):
            return weight
        size = self.change(batch, terms, context).abs()[batch.mask]
        return weight.masked_scatter(batch.mask, self.weights(size).to(weight.dtype))

    def change(self, batch: TokenBatch, terms: TokenTerms, context: Context) -> Float[Tensor, "N T"]:
        """Estimated entropy change of every token over minus the step size; 0 where it is not a number. Nats
        times units of the advantage."""
        assert batch.advantages is not None and batch.old_logprobs is not None and batch.old_entropy is not None
        p = terms.logprobs.exp().clamp(TINY, 1 - TINY)
        push = batch.advantages * p / batch.old_logprobs.exp().clamp(TINY, 1)
        if self.estimator == "exact":
            inner = p * (p.log() + terms.entropy) - terms.extras["sum_p2_logp_h"]
        else:
            entropy = batch.old_entropy if self.estimator == "released" else terms.entropy
            inner = (1 - p) ** self.one_minus_pi_power * (p.log() + entropy)
        change = (push * inner).nan_to_num(0.0, 0.0, 0.0)
        if self.clip_indicator and context.surrogate.clip_settings:
            policy = context.surrogate(terms, ScoredBatch.of(batch))
            change = change.masked_fill(policy.clipped, 0.0)
        return change

    def weights(self, size: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
        """Weights of tokens by the sizes of their changes, at least one token."""
        low, high = size.min(), size.max()
        if self.mode == "exponential":
            relative = size / high.clamp(min=max(self.floor, torch.finfo(size.dtype).tiny))
            return (math.log(self.weight_min) * relative).exp().clamp(self.weight_min, 1.0)
        if high == low:
            return torch.full_like(size, (self.linear_low + self.linear_high) / 2)
        return self.linear_high - (size - low) * (self.linear_high - self.linear_low) / (high - low)
