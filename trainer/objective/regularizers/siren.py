"""Selective entropy regularisation (SIREN). Masks and the mean are taken over a whole mini-batch in ``prepare``;
called through the ``regularizer`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Regularizer, State
from trainer.policy.distribution_stats import ENTROPY_T1


@dataclass(frozen=True, slots=True, kw_only=True)
class Siren(Regularizer):
    """Squared distance of the mean entropy of peak tokens from what it was before training.

        h     = entropy at temperature 1, renormalised over the nucleus of mass top_p  (the likeliest tokens)
        peaks = h > quantile(h of the row's sampled tokens, quantile)                  (strictly)
        mean  = mean over rows of ( sum_peaks h / |peaks| )                            (0 for a row without a peak)
        term  = coef * (mean - anchor)^2

    ``anchor`` is ``mean`` over the whole rollout batch of the first step, before any update. The term is no sum over
    tokens, so ``prepare`` writes it as one around the current policy: with ``share = peaks / |peaks| / rows``,

        term  = sum( 2 coef (mean - anchor) * share * h ) - coef (mean^2 - anchor^2)

    which has the value and the exact gradient of the square over the whole mini-batch, whatever the micro-batches.
    It does not pass through the reduction. Ablations of the paper: ``anchor=False`` (term = -coef * mean),
    ``top_p=None`` (h is the full entropy), ``quantile=None`` (all tokens are peaks), ``peaks_of="full"`` (peaks by full
    entropy). ``coef=0`` is the base method.

    Shape [N, T]; entropies in nats, coef in loss units per squared nat (per nat without anchor).
    """

    about: ClassVar[About] = About(
        source=(
            "SIREN, arXiv 2509.25133, and its released code (the token that crosses top_p stays out; "
            "include_crossing takes it in)"
        ),
        status="released",
        departures=(
            "the square is over the mini-batch, the released one over each micro-batch; logarithms are exact instead "
            "of guarded by 1e-12; peaks are sampled tokens only; h is at temperature 1, in the code at that of the "
            "rollouts (1 in its scripts): an anchor of the first step would otherwise be held against entropies of "
            "another temperature"
        ),
    )

    needs_current: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: float = 0.005
    top_p: float | None = 0.8
    """Mass of the nucleus; None: the full vocabulary."""
    include_crossing: bool = False
    """Whether the token that crosses ``top_p`` belongs to the nucleus (standard nucleus sampling)."""
    quantile: float | None = 0.8
    """Tokens of a row above this quantile of its entropies are peaks; None: all are."""
    peaks_of: Literal["nucleus", "full"] = "nucleus"
    """The entropy that peaks are chosen by."""
    anchor: bool = True

    def __post_init__(self) -> None:
        require(self.coef >= 0, "regularizer.siren.coef", self.coef, "a weight is at least 0")
        p, q = self.top_p, self.quantile
        require(p is None or 0 < p <= 1, "regularizer.siren.top_p", p, "give a mass in (0, 1], or null for no nucleus")
        require(
            q is None or 0 <= q < 1, "regularizer.siren.quantile", q, "give a number in [0, 1), or null for no mask"
        )

    @property
    def active(self) -> bool:
        return self.coef != 0

    @property
    def statistics(self) -> frozenset[str]:
        return frozenset({self._name} | ({ENTROPY_T1} if self.peaks_of == "full" else set()))

    @property
    def _name(self) -> str:
        if self.top_p is None:
            return ENTROPY_T1
        return f"top_p_entropy@{self.top_p}" + ("@1" if self.include_crossing else "")

    def initial_state(self) -> State:
        return {"anchor": None}

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        if not self.anchor or state["anchor"] is not None:
            return state
        assert context.services is not None
        terms = context.services.measure(batch, self.statistics)
        return {"anchor": float((self._token_weights(terms, batch.mask) * self._h(terms)).sum())}

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> dict[str, Tensor]:
        assert terms is not None
        token_weight = self._token_weights(terms, batch.mask)
        if not self.anchor:
            return {"siren_slope": -self.coef * token_weight, "siren_offset": torch.zeros_like(token_weight)}
        mean, anchor = (token_weight * self._h(terms)).sum(), context.state["anchor"]
        offset = -self.coef * (mean**2 - anchor**2) / batch.mask.sum().clamp(min=1)
        return {
            "siren_slope": 2 * self.coef * (mean - anchor) * token_weight,
            "siren_offset": torch.where(batch.mask, offset, 0.0),
        }

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        return batch.extras["siren_slope"] * self._h(terms) + batch.extras["siren_offset"]

    def _h(self, terms: TokenTerms) -> Float[Tensor, "N T"]:
        return terms.extras[self._name]

    def _token_weights(self, terms: TokenTerms, mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N T"]:
        """Weight of each token in ``mean``: 1 / (peaks of its row * rows with a sampled token), 0 off the peaks."""
        by = self._h(terms) if self.peaks_of == "nucleus" else terms.extras[ENTROPY_T1]
        peaks = mask if self.quantile is None else mask & (by > row_quantile(by, mask, self.quantile))
        rows = mask.any(dim=1).sum().clamp(min=1)
        return peaks / (peaks.sum(dim=1, keepdim=True).clamp(min=1) * rows).to(by.dtype)


def row_quantile(values: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], q: float) -> Float[Tensor, "N 1"]:
    """Quantile of the masked values of each row, interpolated linearly, in their units; +inf for a row without any."""
    # torch.quantile refuses more than 16 million values, which is one rollout batch of a large model.
    ordered = values.masked_fill(~mask, torch.inf).sort(dim=1).values
    # Rounded: 0.7 * 10 must not fall a rounding error short of the 7th value, which would then exceed its own quantile.
    rank = (q * (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0).double()).round(decimals=9)
    low, high = ordered.gather(1, rank.floor().long()), ordered.gather(1, rank.ceil().long())
    return torch.where(low == high, low, low + (high - low) * rank.frac().to(low.dtype))
