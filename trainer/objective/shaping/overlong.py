"""A linear penalty on responses that come close to the length limit (DAPO)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Diagnostic, Shaping

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlong(Shaping):
    """Soft overlong punishment: nothing up to a buffer before the limit, then a straight line down to ``-factor``.

        buffer    = buffer_frac * max_tokens
        reward'_i = reward_i - factor * clip((|o_i| - (max_tokens - buffer)) / buffer, 0, 1)

    ``|o_i|`` counts the end token, and the given tokens of a branch. ``factor=0`` changes nothing.

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="DAPO, arXiv 2503.14476; verl's DAPO reward manager (20480 tokens, buffer 4096 = 0.2 of them)",
        status="published",
    )

    neutral: ClassVar[dict[str, object] | None] = {"factor": 0.0}

    max_tokens: int = 20480
    """Tokens from which on the penalty is whole; the YAML takes ``rollout.max_tokens``."""
    buffer_frac: float = 0.2
    """Share of the limit on which the penalty grows."""
    factor: float = 1.0
    """Penalty at the limit, in rewards."""

    def __post_init__(self) -> None:
        require(self.max_tokens >= 1, "shaping.max_tokens", self.max_tokens, "give the longest response, tokens")
        require(
            0 < self.buffer_frac <= 1, "shaping.buffer_frac", self.buffer_frac, "give a share above 0 and at most 1"
        )
        require(self.factor >= 0, "shaping.factor", self.factor, "give a penalty of at least 0")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        longest = run.rollout.max_tokens
        if self.max_tokens * (1 - self.buffer_frac) >= longest:
            yield Diagnostic(
                message=f"shaping.max_tokens={self.max_tokens} punishes nothing that rollout.max_tokens={longest} "
                "lets through: make them equal",
                fatal=False,
            )

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        buffer = self.buffer_frac * self.max_tokens
        length = batch.lengths - batch.prompt_lengths + 1  # the last token is a target only (see pack.py)
        excess = (length.double() - (self.max_tokens - buffer)) / buffer
        return batch.rewards - (self.factor * excess.clamp(0, 1)).float()
