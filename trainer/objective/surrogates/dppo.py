"""DPPO: a trust region on the probability itself instead of its ratio. Row-local; called through the ``surrogate``
slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.estimators import importance_ratio
from trainer.objective.base import Surrogate, SurrogateLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class DPPO(Surrogate):
    """Importance-weighted policy gradient, and none for tokens that have left a divergence ball on the way out.

        tv      D = |p - p_old|
        kl      D = p_old log(p_old / p) + (1 - p_old) log((1 - p_old) / (1 - p))
        kept    not (D > delta and the token moved outward: p > p_old where advantages > 0, p < p_old elsewhere)
        loss    -advantages * sg[min(ratio, max_ratio)] * logprobs where kept; no gradient elsewhere

    ``p`` is the probability of the sampled token, so D is the divergence of "this token or another". A rare token may
    move by a large ratio, a likely one by hardly any. The value of the loss is ``-advantages * min(ratio, max_ratio)``.
    With one update per rollout its gradient is GRPO's.

    Shape [N, T]; D dimensionless (tv) or in nats (kl), loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="DPPO, arXiv 2602.04879; as in verl and SkyRL (max_ratio 20; 1e4 in the authors' script)",
        status="published",
        departures="the value of the loss is that of the ratios, not of the log-probs: one gradient",
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("delta", "max_ratio")
    detached: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    divergence: Literal["tv", "kl"] = "tv"
    """Total variation or binary KL divergence of sampling and current policy."""
    delta: Annotated[float, Range(0)] = 0.15
    """Radius: 0.15 for tv, 0.05 for kl."""
    max_ratio: Annotated[float, Range(1)] = 20.0
    """Upper bound on the ratio as a weight."""

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        with torch.no_grad():
            logprobs, old = terms.logprobs, batch.old_logprobs
            away = (total_variation if self.divergence == "tv" else binary_kl)(old, logprobs) > self.delta
            high = batch.mask & away & (batch.advantages > 0) & (logprobs > old)
            low = batch.mask & away & (batch.advantages <= 0) & (logprobs < old)
            ratio = importance_ratio(logprobs, old).clamp(max=self.max_ratio)
        moving = (terms.logprobs - terms.logprobs.detach()).masked_fill(low | high, 0.0)
        return SurrogateLoss(loss=-batch.advantages * ratio * (1 + moving), clipped_low=low, clipped_high=high)


def total_variation(old_logprobs: Float[Tensor, "N T"], logprobs: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """``|p - p_old|``, dimensionless."""
    return (logprobs.exp() - old_logprobs.exp()).abs()


def binary_kl(old_logprobs: Float[Tensor, "N T"], logprobs: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """``KL((p_old, 1 - p_old) || (p, 1 - p))`` in nats, large and finite where p is 1 and p_old is not."""
    old, old_rest = old_logprobs.exp(), -torch.expm1(old_logprobs)
    tiny = torch.finfo(logprobs.dtype).tiny
    complement = (-torch.expm1(logprobs)).clamp(min=tiny)
    return old * (old_logprobs - logprobs) + old_rest * (old_rest.clamp(min=tiny).log() - complement.log())
