"""DARLING: rewards are multiplied by how much of a response no sibling has."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Shaping

Gram = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Darling(Shaping):
    """Quality times diversity.

        reward'_i   = (reward_i - low) * diversity_i^strength + low,     low = min(0, smallest reward of the group)
        diversity_i = share of response i's different n-grams that no other response of its group has

    A response of fewer than n tokens is one gram. Given tokens do not count. ``strength=0`` changes nothing.

    Shape: [N]; unit: reward, diversity dimensionless.
    """

    about: ClassVar[About] = About(
        source="DARLING, arXiv 2509.02534, from notes on facebookresearch/darling",
        status="reconstructed",
        departures=(
            "the n-gram form alone: their main form partitions responses by a classifier trained for it; their second "
            "form adds two standardised terms"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"strength": 0.0}

    n: Annotated[int, Range(1, 1000)] = 4
    """Tokens of an n-gram."""
    strength: Annotated[float, Range(0, 1000)] = 1.0
    """Power of the diversity."""

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        diversity = torch.empty(batch.num_rows, dtype=torch.float64)
        low = torch.empty_like(batch.rewards)
        for number in torch.unique(batch.group):
            rows = (batch.group == number).nonzero().squeeze(1)
            low[rows] = batch.rewards[rows].min().clamp(max=0)
            diversity[rows] = unique_fraction(
                [grams(batch.targets[row][batch.mask[row]].tolist(), self.n) for row in rows]
            )
        return (batch.rewards - low) * diversity.pow(self.strength).float() + low


def grams(tokens: list[int], n: int) -> set[Gram]:
    """The different n-grams of some tokens; the tokens themselves where they are fewer."""
    return {tuple(tokens[start : start + n]) for start in range(max(len(tokens) - n, 0) + 1)}


def unique_fraction(gram_sets: list[set[Gram]]) -> Float[Tensor, " G"]:
    """Share of each set [G] that is in no other one, dimensionless."""
    holders = Counter(gram for one_set in gram_sets for gram in one_set)
    return torch.tensor(
        [sum(holders[gram] == 1 for gram in one_set) / len(one_set) for one_set in gram_sets],
        dtype=torch.float64,
    )
