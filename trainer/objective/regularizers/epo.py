"""Entropy bonus with a corridor around the history of the entropy (EPO). Row-local; called through the
``regularizer`` slot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Regularizer, State
from trainer.policy.distribution_stats import ENTROPY_T1


@dataclass(frozen=True, slots=True, kw_only=True)
class EPO(Regularizer):
    """An entropy bonus minus a penalty on tokens whose entropy leaves a corridor around the mean of earlier steps.

        term    = -coef * scale * ( entropy - beta_k * smooth * penalty )
        history = mean over the earlier steps of the step's mean h;     penalty = 0 in the first step
        penalty = [low * history - h]_+ + [h - high * history]_+          h = entropy at temperature 1
        beta_k  = 1 + exp(-gamma * k / floor(steps / 2))                      (k counts steps from 0)

    ``variant="released"`` is what the authors' code does: the penalty is the constant ``out_of_range`` outside the
    corridor, so it has no gradient and a plain entropy bonus is what trains; beta is replaced by a weight that falls
    from 1 to 0.04, ``1 - 0.2 (1 - exp(-2x))`` over the first half of the run (x from 0 to 1) and ``0.8 exp(-3x)`` over
    the second. Aggregated like the policy loss (same ``scale``). ``coef=0`` is plain GRPO.

    Shape [N, T]; entropies in nats, coef in loss units per nat.
    """

    about: ClassVar[About] = About(
        source="EPO, arXiv 2509.22576, and its released code",
        status="published",
        departures=(
            "one turn per response; the released weight runs over the steps of this run, in the code over 150 epochs; "
            "the code's condition that a turn of index 25 be present is left out (a single turn never has one); the "
            "corridor compares entropies at temperature 1, in the code at that of the rollouts, so that a schedule of "
            "the temperature does not move tokens out of it; gamma was not found in the source: 1 is assumed; low and "
            "high are the code's defaults"
        ),
        released={"variant": "released"},
    )

    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: float = 0.001
    """Weight of the whole term (lambda)."""
    smooth: float = 1.0
    """Weight of the penalty against the bonus (alpha)."""
    low: float = 0.8
    """Lower end of the corridor as a multiple of the history (kappa_l); 0: none."""
    high: float | None = 1.2
    """Upper end (kappa_r); None: none."""
    gamma: float = 1.0
    variant: Literal["published", "released"] = "published"
    out_of_range: float = 0.1
    """The released penalty."""

    def __post_init__(self) -> None:
        for name in ("coef", "smooth", "low", "gamma", "out_of_range"):
            value = getattr(self, name)
            require(value >= 0, f"regularizer.epo.{name}", value, "give a number of at least 0")
        wide = self.high is None or self.high >= self.low
        require(wide, "regularizer.epo.high", self.high, "give at least regularizer.epo.low, or null for no upper end")

    @property
    def active(self) -> bool:
        return self.coef != 0

    @property
    def statistics(self) -> frozenset[str]:
        return frozenset({ENTROPY_T1})

    def initial_state(self) -> State:
        return {"sum": 0.0, "steps": 0}

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        return {"sum": state["sum"] + metrics["policy/entropy_t1"], "steps": state["steps"] + 1}

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> dict[str, Tensor]:
        steps = context.state["steps"]
        weight = self.smooth * self.time_weight(context.step, context.num_steps) if steps else 0.0
        rows = torch.ones(batch.num_rows, dtype=torch.float64)
        return {"epo_history": rows * context.state["sum"] / max(steps, 1), "epo_weight": rows * weight}

    def time_weight(self, step: int, num_steps: int) -> float:
        """Weight of the penalty at ``step``, counted from 0, of a run of ``num_steps``."""
        half = num_steps // 2
        if self.variant == "published":
            return 1 + math.exp(-self.gamma * step / max(half, 1))
        if step <= half:
            return 1 - 0.2 * (1 - math.exp(-2 * step / max(half, 1)))
        return 0.8 * math.exp(-3 * (step - half) / (num_steps - half))

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        history, weight = (
            batch.extras[name][:, None].to(terms.entropy.dtype) for name in ("epo_history", "epo_weight")
        )
        h = terms.extras[ENTROPY_T1]
        below = self.low * history - h
        above = torch.full_like(below, -torch.inf) if self.high is None else h - self.high * history
        if self.variant == "released":
            penalty = self.out_of_range * ((below >= 0) | (above >= 0)).to(below.dtype)
        else:
            penalty = below.relu() + above.relu()
        return -self.coef * scale * (terms.entropy - weight * penalty)
