"""LUSPO: GSPO's ratio with a sum over the response. Row-local; called through the ``surrogate`` slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from trainer.batch.types import ScoredBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Surrogate, SurrogateLoss
from trainer.objective.surrogates.gspo import GSPO


@dataclass(frozen=True, slots=True, kw_only=True)
class LUSPO(Surrogate):
    """GSPO's loss of a response times its length, so that long responses are not under-weighted.

        loss = mean over responses of |o| max(-A s, -A clip(s, 1 - clip_low, 1 + clip_high)),    s as in GSPO

    That is the token losses of GSPO summed over each response, then the mean over responses.

    Shape [N, T]; ratio dimensionless, loss in units of the advantage.
    """

    about: ClassVar[About] = About(
        source="LUSPO (length-unbiased sequence policy optimisation), arXiv 2602.05261; as in TRL",
        status="published",
        departures="its thresholds were not recovered: those of GSPO",
    )

    clip_settings: ClassVar[tuple[str, ...]] = ("clip_low", "clip_high")
    forced_reduction: ClassVar[str | None] = "SequenceSum"

    clip_low: Annotated[float, Range(0, 1)] = 3e-4
    """Lower threshold on the ratio of a whole response."""
    clip_high: Annotated[float, Range(0)] = 4e-4
    """Upper threshold on it."""

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        return GSPO(clip_low=self.clip_low, clip_high=self.clip_high)(terms, batch)
