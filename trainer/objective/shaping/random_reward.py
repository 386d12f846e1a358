"""Random rewards, independent of the response: a control experiment in which nothing can be learned."""

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
from trainer.objective.base import Context, Diagnostic, Shaping
from trainer.objective.groups import needs_all_groups

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomReward(Shaping):
    """Coin flips instead of the verifier's rewards; evaluation and ``rollout/reward`` keep the verifier's.

        reward'_i ~ Bernoulli(p), independent of prompt and response, drawn by (seed of the run, step, row)

    The expected gradient on fresh samples is 0, so what moves the entropy is noise, clipping and momentum: to first
    order there is no drift without clipping, and with it the thresholds' own (arXiv 2509.26114).

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="arXiv 2509.26114 and 2512.16912 (random rewards as a probe of clipping)",
        status="published",
    )

    p: float = 0.5
    """Chance of a reward of 1."""

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, "shaping.p", self.p, "give a probability from 0 to 1")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return needs_all_groups(run, "shaping RandomReward")

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        draws = torch.rand(batch.num_rows, generator=context.generator("random reward"))
        return (draws < self.p).to(batch.rewards)
