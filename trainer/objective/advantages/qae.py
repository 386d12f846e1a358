"""A quantile of the group's rewards as baseline instead of their mean (QAE). Never sees log-probs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import group_statistics

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class QAE(Advantage):
    """Reward minus a quantile of its group, over the group's standard deviation.

        advantage_i = (reward_i - Q_K) / (std_group + eps)
        Q_K         = inf{x: F_group(x) >= K}            rule = inf: the ceil(K * G)-th smallest reward
                    = interpolated quantile              rule = linear: what torch.quantile gives

    With rewards 0 and 1 the baseline of a hard group (accuracy <= 1 - K) is 0, so only its correct responses get an
    advantage; that of an easy group is 1, so only its incorrect ones do. All-equal groups give 0, a group of one too.

    Shape: [N]; unit: standard deviations.
    """

    about: ClassVar[About] = About(
        source="QAE, arXiv 2509.22611",
        status="published",
        departures=(
            "none under rule inf; the authors' code interpolates (rule linear, ddof 1), so near the threshold both "
            "sides get a signal; its fallback to the mean for K outside (0, 1) is left out"
        ),
        released={"rule": "linear"},
    )

    quantile: float = 0.4
    """K: 0.4 with clip-higher, 0.6 where entropy is too low; a higher K raises entropy."""
    rule: Literal["inf", "linear"] = "inf"
    """Definition of the quantile: the paper's, or the released code's."""
    ddof: Literal[0, 1] = 0
    """Degrees of freedom taken off in the standard deviation: 0 is sqrt(p (1 - p)), 1 is verl's."""
    eps: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        require(0 < self.quantile < 1, "advantage.quantile", self.quantile, "give a number between 0 and 1")
        require(self.eps >= 0, "advantage.eps", self.eps, "it is added to a standard deviation, so at least 0")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if run.rollout.group_size == 1:
            why = "rollout.group_size=1 makes every reward its own quantile, so all advantages are 0"
            yield Diagnostic(message=f"{why}: raise rollout.group_size")

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        group = group_statistics(batch.rewards, batch.group, ddof=self.ddof)
        rewards = batch.rewards.double()
        baseline = torch.zeros_like(rewards)
        for number in torch.unique(batch.group):
            rows = batch.group == number
            baseline[rows] = self._baseline(rewards[rows])
        advantages = (rewards - baseline) / (group.std + self.eps)
        return advantages.masked_fill(group.constant.bool(), 0.0).float()

    def _baseline(self, rewards: Float[Tensor, " G"]) -> Tensor:
        if self.rule == "linear":
            return rewards.quantile(self.quantile)
        # K * G may come out a hair above a whole number (0.28 * 25), which must not count as one more.
        rank = math.ceil(self.quantile * len(rewards) - 1e-9)
        return rewards.sort().values[rank - 1]
