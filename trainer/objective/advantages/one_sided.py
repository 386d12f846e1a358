"""GRPO that can be switched to correct or to incorrect responses only (Entrocraft's three estimators)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.advantages.signed import Signed
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import needs_all_groups

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSided(Advantage):
    """One of three estimators for the whole batch.

        side = 0     GRPO: the reward standardised within its group
        side > 0     RAFT: 1 if the response is correct, else 0
        side < 0     NSR:  0 if the response is correct, else -1

    Groups that are all correct or all incorrect train on their side like any other.

    Shape: [N]; unit: standard deviations (GRPO), reward (the others).
    """

    about: ClassVar[About] = About(
        source="Entrocraft, arXiv 2604.26326, and lblaoke/entrocraft",
        status="published",
        departures="rewards of 1 and -1 are made from the verdict, so shaping reaches GRPO only",
    )

    neutral: ClassVar[dict[str, object] | None] = {"side": 0.0, "eps": 1e-6}

    side: float = 0.0
    """Which estimator, by its sign; usually set by controller entrocraft."""
    eps: float = 1e-6
    """Added to GRPO's standard deviation."""

    def __post_init__(self) -> None:
        require(self.eps >= 0, "advantage.eps", self.eps, "it is added to a standard deviation, so at least 0")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        yield from GRPO(eps=self.eps).diagnostics(run)
        yield from needs_all_groups(run, "advantage OneSided")

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        if self.side == 0:
            return GRPO(eps=self.eps)(batch)
        positive = float(self.side > 0)
        return Signed(positive=positive, negative=1 - positive)(batch)
