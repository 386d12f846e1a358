"""RLCR: a response states its confidence, and its Brier score is subtracted from the reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.metrics.calibration import stated_confidence
from trainer.objective.base import Context, Shaping
from trainer.objective.groups import is_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class RLCR(Shaping):
    """The reward minus the Brier score of the confidence that stands in the response.

        reward'_i = reward_i - weight * (q_i - [i is correct])^2,     q_i in the last <confidence>q</confidence>

    ``q`` is a probability (``0.7`` or ``70%``). Without one, or with one out of range, the penalty is the whole weight.
    The task has to ask for it: ``task=gsm8k_confidence``. ``weight=0`` changes nothing.

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="RLCR, Beyond Binary Rewards, arXiv 2507.16806, from notes",
        status="published",
        departures="what a response without a confidence loses was not recovered: as much as the worst one",
    )

    neutral: ClassVar[dict[str, object] | None] = {"weight": 0.0}

    weight: Annotated[float, Range(0, 1000)] = 1.0
    """Of the Brier score."""

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        assert context.services is not None
        stated = [stated_confidence(rollout.text) for rollout in context.services.rollouts]
        confidence = torch.tensor([float("nan") if q is None else q for q in stated], dtype=torch.float64)
        brier = (confidence - is_correct(batch).double()).square().nan_to_num(nan=1.0)
        return batch.rewards - (self.weight * brier).float()
