"""Protection of unlikely but sensible tokens (Lp-Reg). Tokens are selected over a whole mini-batch in ``prepare``;
called through the ``regularizer`` slot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.estimators import MAX_K3, k3
from trainer.objective.base import Context, Diagnostic, Regularizer

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LpReg(Regularizer):
    """Pulls a few unlikely tokens of negative advantage towards a proxy without the noise below ``min_p``.

        proxy    = p where p'_a >= min_p * max p', else 0, renormalised          p' = p at temperature 1
        selected = advantages < 0  and  logprobs among the lowest share  and  the token is kept by the proxy
        term     = coef * scale * divergence                                   on the selected tokens

    ``variant="published"``: the proxy is that of the current policy, held fixed; the share is
    ``floor(lowest_frac * n)`` of all n sampled tokens; the divergence is the full ``KL(proxy || p) = -log sum_kept p``.
    ``variant="released"``: the proxy is that of the sampling policy; the share is ``floor(lowest_frac * n)`` of the n
    tokens of negative advantage, at least 2 or none, and only those below their proxy; the divergence is the one-token
    estimate ``min(exp(d) - d - 1, 10)`` with ``d = clamp(log proxy(token) - logprobs, -20, 20)``.
    The filter looks at the model's own probabilities, and the temperature divides the logits of what it keeps, as in
    the code's ``apply_min_p``. ``coef=0`` is plain GRPO.

    Shape [N, T]; coef in loss units per nat.
    """

    about: ClassVar[About] = About(
        source="Lp-Reg, arXiv 2510.03222 v2, and its development code",
        status="published",
        departures=(
            "selected over the mini-batch, in the code over each micro-batch; the full divergence with the proxy of"
            " the sampling policy is not offered, as it would need that policy's whole distribution at every token;"
            " no tokens of positive advantage are selected (a fraction of 0 in all scripts); selected tokens keep "
            "the surrogate's lower clip where it has one (the presets have none)"
        ),
        released={"variant": "released"},
    )

    needs_current: ClassVar[bool] = True
    needs_old: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: float = 1.0
    """Weight of the divergence (beta)."""
    min_p: float = 0.02
    """Tokens below this share of the likeliest token's probability are noise (kappa)."""
    lowest_frac: float = 0.01
    """Share of tokens that counts as unlikely (rho); the paper takes 0.01 for Qwen3-14B and 0.005 for Qwen2.5-32B."""
    variant: Literal["published", "released"] = "published"

    def __post_init__(self) -> None:
        require(self.coef >= 0, "regularizer.lp_reg.coef", self.coef, "a weight is at least 0")
        require(0 <= self.min_p <= 1, "regularizer.lp_reg.min_p", self.min_p, "give a share from 0 to 1")
        require(
            0 <= self.lowest_frac <= 1, "regularizer.lp_reg.lowest_frac", self.lowest_frac, "give a share from 0 to 1"
        )

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if self.variant == "released" and run.optim.num_updates == 1:
            why = "with optim.updates_per_rollout=1 the released Lp-Reg hardly pulls: its proxy is the policy itself"
            yield Diagnostic(message=f"{why}; take more updates, or regularizer.lp_reg.variant=published", fatal=False)

    @property
    def active(self) -> bool:
        return False  # a token without advantage is never selected

    @property
    def statistics(self) -> frozenset[str]:
        return frozenset(self._names) if self.variant == "published" else frozenset()

    @property
    def old_statistics(self) -> frozenset[str]:
        return frozenset(self._names) if self.variant == "released" else frozenset()

    @property
    def _names(self) -> tuple[str, str]:
        return f"min_p_logmass@{self.min_p}", f"min_p_kept@{self.min_p}"

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> dict[str, Tensor]:
        assert terms is not None and batch.advantages is not None and batch.old_logprobs is not None
        negative = batch.mask & (batch.advantages < 0)
        if self.variant == "published":
            low = _lowest(terms.logprobs, batch.mask, self.lowest_frac, at_least=1)
            return {"lp_reg_selected": negative & low & (terms.extras[self._names[1]] > 0)}
        mass, kept = (batch.extras[f"old_{name}"] for name in self._names)
        proxy = batch.old_logprobs - mass
        low = _lowest(terms.logprobs, negative, self.lowest_frac, at_least=2)
        selected = negative & low & (kept > 0) & (terms.logprobs < proxy)
        return {"lp_reg_selected": selected, "lp_reg_proxy": proxy}

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        if self.variant == "published":
            divergence = -terms.extras[self._names[0]]
        else:
            divergence = k3(batch.extras["lp_reg_proxy"] - terms.logprobs).clamp(max=MAX_K3)
        return self.coef * scale * torch.where(batch.extras["lp_reg_selected"], divergence, 0.0)


def _lowest(
    values: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], share: float, *, at_least: int
) -> Bool[Tensor, "N T"]:
    """Whether a value is among the ``floor(share * n)`` lowest of the n under the mask; none if fewer than
    ``at_least``."""
    count = int(share * int(mask.sum()))
    if count < at_least:
        return torch.zeros_like(mask)
    return mask & (values <= values[mask].kthvalue(count).values)
