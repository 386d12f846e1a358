"""RepExp: a bonus for responses whose hidden states stand apart from those of their group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Shaping
from trainer.objective.groups import is_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class RepExp(Shaping):
    """Representation-based exploration: elliptical bonuses within a group.

        reward'_i = reward_i + coef * b_i       in groups with a correct response, else reward_i
        b_i       = h_i^T (H^T H + ridge I)^-1 h_i                leverage, from 0 to 1
        b_i / (1 - b_i)                                           leave_one_out: the same without i in H
        h_i       = P s_i minus the group's mean of it; rows of H
        s_i       = mean last hidden state of the response in the initial model, [D]
        P         = sqrt(sqrt(D) / dimension) * {+1, 0, -1}, not 0 with probability 1 / sqrt(D)    [dimension, D]

    P is drawn anew in every step. Where ``dimension`` reaches the group's size and states differ by much more than
    sqrt(ridge), all leverages come close to 1 - 1/G; what is left of their differences counts where rewards are equal
    and the advantage divides by the deviation. ``coef=0`` changes nothing.

    Shape: [N]; unit: reward; bonuses dimensionless, ridge in squared units of the hidden states.
    """

    about: ClassVar[About] = About(
        source="RepExp, arXiv 2510.11686; the authors' recipe for verl (rep_exp)",
        status="released",
        departures=(
            "a response is the mean over the states that its tokens were sampled from, theirs over the states of its "
            "tokens, one position further; one solve instead of rank-one updates of the inverse, which is the same; "
            "their options that normalise bonuses or keep covariances over steps are left out, their scripts use none"
        ),
    )

    needs_states: ClassVar[bool] = True
    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: Annotated[float, Range(0, 1000)] = 0.01
    """Bonus of a leverage of 1 (beta)."""
    ridge: Annotated[float, Range(1e-12, 1e6)] = 0.01
    """lambda."""
    dimension: Annotated[int, Range(1, 100_000)] = 32
    """Of the projected states; the authors take 32 for GSM8K and MATH, 128 for long responses."""
    kind: Literal["leverage", "leave_one_out"] = "leverage"
    """Their script has the first, the defaults of their code the second."""

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        if not self.coef:
            return batch.rewards
        assert context.services is not None
        states = context.services.states(batch).double()
        projected = states @ projection(states.shape[1], self.dimension, context.generator("rep_exp")).T
        bonus, correct = torch.zeros(batch.num_rows, dtype=torch.float64), is_correct(batch)
        for number in torch.unique(batch.group):
            rows = (batch.group == number).nonzero().squeeze(1)
            if bool(correct[rows].any()):
                leverage = leverages(projected[rows], self.ridge)
                bonus[rows] = leverage if self.kind == "leverage" else leverage / (1 - leverage)
        return batch.rewards + (self.coef * bonus).float()


def projection(width: int, dimension: int, generator: torch.Generator) -> Float[Tensor, "d D"]:
    """A very sparse random projection (Li, Hastie and Church, 2006), dimensionless: it keeps squared lengths on
    average. With ``s = sqrt(D)`` an entry is +sqrt(s / d) or -sqrt(s / d), each with probability 1 / (2 s), else 0."""
    s = math.sqrt(width)
    draw = torch.rand(dimension, width, generator=generator, dtype=torch.float64) * 2 * s
    return ((draw < 1).double() - ((draw >= 1) & (draw < 2)).double()) * math.sqrt(s / dimension)


def leverages(states: Float[Tensor, "G d"], ridge: float) -> Float[Tensor, " G"]:
    """``h_i^T (H^T H + ridge I)^-1 h_i`` of rows minus their mean, dimensionless, from 0 to below 1."""
    centred = states - states.mean(dim=0)
    gram = centred.T @ centred + ridge * torch.eye(states.shape[1], dtype=states.dtype)
    solved: Tensor = torch.linalg.solve(gram, centred.T)
    return (centred * solved.T).sum(dim=1)
