"""Statistics of rewards within groups, shared by advantages and shapings. Pure functions; they must not know any
method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trainer.batch.types import CORRECT_ABOVE, TokenBatch
from trainer.objective.base import Diagnostic

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


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


def is_correct(batch: TokenBatch) -> Bool[Tensor, " N"]:
    """Mask of the responses that the verifier called correct, whatever shaping made of their rewards; dimensionless."""
    return batch.raw_rewards > CORRECT_ABOVE


def needs_peers(run: RunSettings) -> Iterator[Diagnostic]:
    """The refusal of an advantage that compares a response with the others of its group."""
    if run.rollout.group_size == 1:
        why = "rollout.group_size=1 leaves nothing to compare a response with, so advantages would be plain rewards"
        yield Diagnostic(message=f"{why}: give at least 2, or choose advantage=signed")


def needs_all_groups(run: RunSettings, what: str) -> Iterator[Diagnostic]:
    """The remark of a member that learns from groups without a spread of rewards."""
    if getattr(run.rollout, "keep", "all") == "signal":
        why = f"{what} learns from groups whose rewards are all equal, but dynamic sampling throws those away"
        yield Diagnostic(message=f"{why}: choose rollout=standard", fatal=False)


def moving_temperature(run: RunSettings, what: str) -> Iterator[Diagnostic]:
    """The remark of a member that holds the entropy of the rollouts against a fixed number of nats."""
    start, end = run.rollout.temperature, run.rollout.temperature_end
    why = f"{what} answers to the entropy at the step's own temperature, so it also follows"
    if end is not None and end != start:
        remedy = "set rollout.temperature_end=null to hold one"
        yield Diagnostic(message=f"{why} the schedule from {start} to {end}: {remedy}", fatal=False)
    for name, controller in run.objective.controller.items():
        if controller.target == "rollout.temperature":
            yield Diagnostic(message=f"{why} controller {name}: leave that out to hold one", fatal=False)


def ignores_shaping(run: RunSettings, name: str) -> Iterator[Diagnostic]:
    """The remark of an advantage that asks only whether a response is correct."""
    if run.objective.shaping.neutral != {}:
        shaping = type(run.objective.shaping).__name__
        why = f"advantage {name} asks only whether a response is correct, so shaping {shaping} changes nothing"
        yield Diagnostic(message=f"{why}: choose shaping=none, or another advantage", fatal=False)
