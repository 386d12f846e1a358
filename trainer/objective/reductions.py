"""Denominators: how a matrix of token losses becomes a number. All sums run over the whole mini-batch before it is
split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Reduction


def _token_counts(batch: TokenBatch) -> Float[Tensor, "N 1"]:
    return batch.mask.sum(dim=1, keepdim=True).float()


def _num_sequences(counts: Float[Tensor, "N 1"]) -> Tensor:
    """Sequences with at least one sampled token; fully masked ones must not count."""
    return (counts > 0).sum().clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMean(Reduction):
    """``sum L m / sum m``: every token counts the same (DAPO and most entropy papers; specification 0.4).

    ``rows="signal"`` takes both sums over the rows that have an advantage; the others are dropped, for regularizers too
    (PSR and NSR; specification 14.3).
    """

    about: ClassVar[About] = About(
        source="DAPO, arXiv 2503.14476; rows=signal as in NSR, arXiv 2506.01347",
        status="published",
    )

    neutral: ClassVar[dict[str, object] | None] = {"rows": "all"}

    rows: Literal["all", "signal"] = "all"
    """Rows that count."""

    def scale(self, batch: TokenBatch) -> Float[Tensor, "N 1"]:
        counts = _token_counts(batch)
        kept = torch.ones_like(counts)
        if self.rows == "signal":
            assert batch.advantages is not None
            kept = ((batch.advantages != 0) & batch.mask).any(dim=1, keepdim=True).float()
        return kept / (counts * kept).sum().clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceMean(Reduction):
    """``mean_i (sum_t L m / |o_i|)``: every response counts the same (original GRPO; specification 0.4)."""

    about: ClassVar[About] = About(source="GRPO, DeepSeekMath, arXiv 2402.03300", status="published")

    def scale(self, batch: TokenBatch) -> Float[Tensor, "N 1"]:
        counts = _token_counts(batch)
        return 1.0 / (counts.clamp(min=1) * _num_sequences(counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSum(Reduction):
    """``mean_i (sum_t L m)``: longer responses count more (REINFORCE; specification 0.4)."""

    about: ClassVar[About] = About(source="REINFORCE, common practice", status="published")

    def scale(self, batch: TokenBatch) -> Float[Tensor, "N 1"]:
        counts = _token_counts(batch)
        return torch.ones_like(counts) / _num_sequences(counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Reduction):
    """``mean_i (sum_t L m) / length``: a constant instead of the response's length (Dr.GRPO; specification 0.4,
    1.3)."""

    about: ClassVar[About] = About(source="Dr. GRPO, arXiv 2503.20783", status="published")

    length: float = 40.0
    """The constant; Dr.GRPO takes the generation budget in tokens, and so does the YAML (``rollout.max_tokens``)."""

    def __post_init__(self) -> None:
        require(
            self.length > 0,
            "reduction.length",
            self.length,
            "give a positive number of tokens, usually rollout.max_tokens",
        )

    def scale(self, batch: TokenBatch) -> Float[Tensor, "N 1"]:
        counts = _token_counts(batch)
        return torch.ones_like(counts) / (_num_sequences(counts) * self.length)
