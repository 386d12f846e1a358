"""GRPO advantages, lowered for confident responses and raised for unconfident ones (ARM, also ProGRPO)."""

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
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import group_statistics, is_correct, needs_all_groups

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ARM(Advantage):
    """GRPO's advantage, plus how much less confident than its group a response is.

        advantage_i  = grpo_i + alpha * (c(q) - c_i)      where some response of the group is correct, else grpo_i
        c_i          = exp(mean of the ceil(low_frac * |o_i|) smallest log-probs of response i)
        c(q)         = mean_group c_i

    Log-probs are the sampler's: those of the weights that sampled, held to the trainer's by the consistency check of
    every step, so no forward pass is needed. ``skip_all_correct`` leaves groups that are all correct alone too.
    ``alpha=0`` is GRPO.

    Shape: [N]; unit: standard deviations; confidences are probabilities.
    """

    about: ClassVar[About] = About(
        source="ARM / ProGRPO, arXiv 2602.05281: abstract and two summaries",
        status="reconstructed",
        departures=(
            "alpha was not recovered and is assumed; the paper's c(q) is a confidence in the prompt whose token set"
            " is unknown, here the group's mean, so the correction adds up to 0 in every group (differences within "
            "a group do not depend on it)"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"alpha": 0.0, "eps": 1e-6}

    alpha: float = 0.5
    """Advantage for one unit of confidence (assumed)."""
    low_frac: float = 0.2
    """Share of a response's tokens, the least likely ones, that its confidence is measured on."""
    skip_all_correct: bool = False
    """Leave groups without an incorrect response alone; the sources disagree."""
    eps: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        require(
            self.alpha >= 0, "advantage.alpha", self.alpha, "a negative one would reward confidence: give at least 0"
        )
        require(0 < self.low_frac <= 1, "advantage.low_frac", self.low_frac, "give a share above 0 and at most 1")
        require(self.eps >= 0, "advantage.eps", self.eps, "it is added to a standard deviation, so at least 0")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        yield from GRPO(eps=self.eps).diagnostics(run)
        if self.alpha and not self.skip_all_correct:
            yield from needs_all_groups(run, "advantage ARM")

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        confidence = low_confidence(batch, self.low_frac)
        shift = group_statistics(confidence, batch.group).mean - confidence
        accuracy = group_statistics(is_correct(batch).double(), batch.group).mean
        corrected = (accuracy > 0) & ~(self.skip_all_correct & (accuracy == 1))
        correction = torch.where(corrected, self.alpha * shift, torch.zeros_like(shift))
        return GRPO(eps=self.eps)(batch) + correction.float()


def low_confidence(batch: TokenBatch, low_frac: float) -> Float[Tensor, " N"]:
    """``exp(mean)`` of the least likely ``low_frac`` of a response's sampled tokens, rounded up; 1 if it has none.
    A probability."""
    counts = batch.mask.sum(dim=1)
    most = (low_frac * counts.double() - 1e-9).ceil().long()
    logprobs = batch.sampler_logprobs.double().masked_fill(~batch.mask, torch.inf).sort(dim=1).values
    lowest = torch.arange(logprobs.shape[1], device=most.device) < most[:, None]
    total = torch.where(lowest, logprobs, torch.zeros_like(logprobs)).sum(dim=1)
    return (total / most.clamp(min=1)).exp()
