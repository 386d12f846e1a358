"""Advantages that are powers of a group's odds of success: MaxRL, AsymGRPO and, but for a factor, GRPO. Never sees
log-probs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import group_statistics, ignores_shaping, is_correct, needs_peers

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OddsPower(Advantage):
    """One exponent for correct responses, one for incorrect ones, of the group's accuracy p.

        advantage_i =  ((1 - p) / p)^positive      if response i is correct
        advantage_i = -(p / (1 - p))^negative      if not

    Groups with p = 0 or p = 1 give 0. ``(1, 0)`` is MaxRL, ``(reward - p) / p``: the gradient of the log-likelihood of
    a correct answer, or of all pass@k at once; a success of a hard prompt counts 1 / p - 1. ``(1/2, 1/2)`` is GRPO with
    the population's standard deviation, ``(0.9, 0.4)`` AsymGRPO, ``(0, 0)`` the sign alone.

    Shape: [N]; dimensionless.
    """

    about: ClassVar[About] = About(
        source=(
            "MaxRL, arXiv 2602.02710, and its repository; exponents as in AsymGRPO, arXiv 2604.04894, read through two"
            " secondary notes; that one family holds both and GRPO is this project's observation"
        ),
        status="published",
        departures="MaxRL's 1e-6 in the denominator is left out; a response is correct or not, whatever its reward",
    )

    positive: Annotated[float, Range(0, 4)] = 1.0
    """Exponent of the odds of failure, for correct responses (beta_+)."""
    negative: Annotated[float, Range(0, 4)] = 0.0
    """Exponent of the odds of success, for incorrect ones (beta_-)."""

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        yield from needs_peers(run)
        yield from ignores_shaping(run, "OddsPower")

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        correct = is_correct(batch)
        group = group_statistics(correct.double(), batch.group)
        odds = group.mean / (1 - group.mean)
        advantages = torch.where(correct, odds**-self.positive, -(odds**self.negative))
        return advantages.masked_fill(group.constant.bool(), 0.0).float()
