"""Advantages of pass@k training: a group of k responses is correct if one of them is. Never sees log-probs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, sqrt
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Advantage, Diagnostic
from trainer.objective.groups import group_statistics, ignores_shaping, is_correct

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PassK(Advantage):
    """Expected standardised pass@k reward over all groups of k that a response can be in, in closed form.

        rho            = 1 - C(n - c, k) / C(n, k)                    n responses, c of them correct
        sigma          = sqrt(rho (1 - rho))
        advantage_i    = (1 - rho) / (sigma + eps)                                             correct
                       = (1 - rho - C(n - c - 1, k - 1) / C(n - 1, k - 1)) / (sigma + eps)     incorrect

    0 where c = 0 or rho = 1. ``k = 1`` is GRPO with the population standard deviation.

    Shape: [N]; unit: standard deviations of pass@k.
    """

    about: ClassVar[About] = About(source="Chen et al., arXiv 2508.10751; RUCAIBox/Passk_Training", status="released")

    k: int = 4
    """Responses of which one has to be correct."""
    eps: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        require(self.k >= 1, "advantage.k", self.k, "pass@k needs at least one response")
        require(self.eps >= 0, "advantage.eps", self.eps, "it is added to a standard deviation, so at least 0")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        yield from ignores_shaping(run, "PassK")
        size = run.rollout.group_size
        if self.k >= size:
            why = f"with advantage.k={self.k} and rollout.group_size={size} pass@k is 0 or 1 in every group"
            yield Diagnostic(message=f"{why}, so all advantages are 0: take a k below the group size")

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        correct = is_correct(batch)
        group = group_statistics(correct.double(), batch.group)
        counts = zip(group.size.long().tolist(), (group.size * group.mean).round().long().tolist(), strict=True)
        pairs = [passk_advantages(n, c, self.k, self.eps) for n, c in counts]
        chosen = [pair[0] if is_correct else pair[1] for pair, is_correct in zip(pairs, correct.tolist(), strict=True)]
        return batch.rewards.new_tensor(chosen)


def passk_advantages(n: int, c: int, k: int, eps: float) -> tuple[float, float]:
    """(advantage of a correct response, of an incorrect one) in a group of ``n`` with ``c`` correct ones."""
    if c == 0 or n - c < k:
        return 0.0, 0.0
    fail = comb(n - c, k) / comb(n, k)
    sigma = sqrt(fail * (1 - fail)) + eps
    return fail / sigma, (fail - comb(n - c - 1, k - 1) / comb(n - 1, k - 1)) / sigma
