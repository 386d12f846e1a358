"""A fixed advantage for correct and one for incorrect responses, without a baseline (PSR, NSR, W-REINFORCE). Called
once per rollout batch through the ``advantage`` slot; never sees log-probs."""

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
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import ignores_shaping, is_correct, needs_all_groups

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Advantage):
    """REINFORCE on correct and on incorrect responses, each with its own weight.

        advantage_i = positive if response i is correct else -negative

    ``positive=1, negative=0`` is PSR, ``0, 1`` is NSR, ``0.1, 1`` is W-REINFORCE, ``1, 1`` is REINFORCE with rewards of
    1 and -1. Groups that are all correct or all incorrect train like any other. PSR and NSR drop the rows of the other
    side: they count in no denominator either, which is ``reduction.rows=signal`` (the presets have it).

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="NSR, arXiv 2506.01347; TianHongZXY/RLVR-Decomposed",
        status="published",
        departures="none; the released scripts also leave an entropy bonus of 1e-3 switched on (presets *_released)",
    )

    positive: float = 0.1
    """Advantage of a correct response."""
    negative: float = 1.0
    """Minus the advantage of an incorrect one."""

    def __post_init__(self) -> None:
        require(self.positive >= 0, "advantage.positive", self.positive, "a weight is at least 0")
        require(self.negative >= 0, "advantage.negative", self.negative, "a weight is at least 0")
        require(
            self.positive + self.negative > 0, "advantage.negative", self.negative, "one of the two has to be above 0"
        )

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        yield from ignores_shaping(run, "Signed")
        yield from needs_all_groups(run, "advantage Signed")

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        ones = torch.ones_like(batch.rewards)
        return torch.where(is_correct(batch), self.positive * ones, -self.negative * ones)
