"""Statistics of rewards within groups, shared by advantages. Pure functions; they must not know any method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatistics:
    """Per rollout, the statistics of its own group; every tensor is [N]."""

    size: Float[Tensor, " N"]
    mean: Float[Tensor, " N"]
    std: Float[Tensor, " N"]
    """Standard deviation with the requested ``ddof``; 0 where it is not defined."""
    constant: Float[Tensor, " N"]
    """1 where all values of the group are equal."""


def group_statistics(values: Float[Tensor, " N"], group: Int[Tensor, " N"], *, ddof: int = 1) -> GroupStatistics:
    """Mean, standard deviation and size of each rollout's group.

    ``mean_g = sum_{i in g} x_i / n_g``, ``std_g = sqrt(sum (x_i - mean_g)^2 / max(n_g - ddof, 1))``. Accumulated in
    float64, so that a group of equal values has deviations of exactly 0.
    """
    index = torch.unique(group, return_inverse=True)[1]
    count = int(index.max()) + 1 if index.numel() else 0
    wide = values.double()

    def total(x: Tensor) -> Tensor:
        return torch.zeros(count, dtype=torch.float64, device=x.device).index_add_(0, index, x)[index]

    size = total(torch.ones_like(wide))
    mean = total(wide) / size
    low = torch.full((count,), torch.inf, dtype=torch.float64, device=wide.device).scatter_reduce_(
        0, index, wide, "amin"
    )[index]
    high = torch.full((count,), -torch.inf, dtype=torch.float64, device=wide.device).scatter_reduce_(
        0, index, wide, "amax"
    )[index]
    constant = low == high
    # A sum of n equal numbers over n is not always that number in floating point; for constant groups it has to be.
    mean = torch.where(constant, low, mean)
    std = (total((wide - mean) ** 2) / (size - ddof).clamp(min=1)).sqrt()
    return GroupStatistics(size=size, mean=mean, std=std, constant=constant.double())
