"""Correct responses are worth less the likelier they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.metrics.calibration import average_ranks
from trainer.objective.base import Context, Diagnostic, Shaping
from trainer.objective.groups import is_correct, needs_all_groups

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlikeliness(Shaping):
    """Rewards of correct responses fall with their rank by likelihood within the group.

        reward'_i = reward_i * (1 - beta * rank_i / G)      if response i is correct, else reward_i
        rank_i    = responses of the group with a smaller mean log-prob per token

    Rank 0 is the least likely response, correct or incorrect; equal ones share the mean of their ranks. Groups that are
    all correct so get a signal. Log-probs are the sampler's, at the weights that sampled; the consistency check of each
    step compares them with the trainer's, so no forward pass is needed. ``beta=0`` changes nothing.

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="arXiv 2506.02355; AndreHe02/rewarding-unlikely-release",
        status="released",
        departures="ties share a rank, so the order of rows does not matter",
    )

    neutral: ClassVar[dict[str, object] | None] = {"beta": 0.0}

    beta: float = 0.25
    """Share of the reward that the likeliest response of a large group loses."""

    def __post_init__(self) -> None:
        require(
            0 <= self.beta <= 1, "shaping.beta", self.beta, "give a share from 0 to 1, so that rewards keep their sign"
        )

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return needs_all_groups(run, "shaping Unlikeliness")

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        logprobs = torch.where(batch.mask, batch.sampler_logprobs.double(), torch.zeros((), dtype=torch.float64))
        means = logprobs.sum(dim=1) / batch.mask.sum(dim=1).clamp(min=1)
        relative_rank = torch.zeros_like(means)
        for number in torch.unique(batch.group):
            rows = batch.group == number
            ranks = torch.from_numpy(average_ranks(means[rows].numpy())) - 1
            relative_rank[rows] = ranks / len(ranks)
        factor = torch.where(is_correct(batch), 1 - self.beta * relative_rank, torch.ones_like(relative_rank))
        return batch.rewards * factor.float()
