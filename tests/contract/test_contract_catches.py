"""The checks themselves: components that break one promise each, and the check that has to notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import contract_checks as checks
import pytest
import torch
from contract_checks import CHECKS, Case, from_member
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.objective.base import (
    Component,
    Context,
    Controller,
    Reduction,
    Regularizer,
    State,
    Surrogate,
    SurrogateLoss,
    Weight,
)
from trainer.objective.regularizers.entropy_bonus import EntropyBonus
from trainer.objective.surrogates.ppo_clip import PPOClip


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen(Regularizer):
    """Moves with the entropy and sends nothing through it."""

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Tensor) -> Tensor:
        return -scale * terms.entropy.detach()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenOnPurpose(Frozen):
    """The same, declared."""

    detached: ClassVar[frozenset[str]] = frozenset({"entropy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AcrossRows(Regularizer):
    """Compares a row with the others of its micro-batch."""

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Tensor) -> Tensor:
        return scale * (terms.entropy - terms.entropy[batch.mask].mean()) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OverPadding(Weight):
    """Averages over padding."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Tensor:
        assert batch.advantages is not None
        return torch.ones_like(batch.advantages) + batch.advantages.abs().mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalNoise(Weight):
    """Draws from the global generator."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Tensor:
        return torch.rand(batch.mask.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeededNoise(Weight):
    """Draws as it should: over sampled tokens, from the context's generator."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Tensor:
        drawn = torch.rand(int(batch.mask.sum()), generator=context.generator("noise"))
        return torch.ones(batch.mask.shape).masked_scatter(batch.mask, drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseOverPadding(Weight):
    """Draws for padding too, so its width decides what falls on whom."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Tensor:
        return torch.rand(batch.mask.shape, generator=context.generator("noise"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Current(Weight):
    """Looks at the current policy over the whole mini-batch, and says so."""

    needs_current: ClassVar[bool] = True

    @property
    def statistics(self) -> frozenset[str]:
        return frozenset({"sum_p2_logp_h"})

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Tensor:
        assert terms is not None
        surprise = terms.entropy + terms.extras["sum_p2_logp_h"]
        return torch.where(batch.mask, surprise - surprise[batch.mask].mean(), torch.zeros(()))


@dataclass(frozen=True, slots=True, kw_only=True)
class NotQuiteNeutral(Weight):
    """Claims to change nothing."""

    neutral: ClassVar[dict[str, object] | None] = {}

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Tensor:
        return torch.full(batch.mask.shape, 1 + 1e-7)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPosition(Weight):
    """Depends on where in the batch a row stands."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Tensor:
        return torch.arange(1.0, batch.num_rows + 1)[:, None].expand(batch.mask.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerPart(Reduction):
    """Divides by the padded width."""

    def scale(self, batch: TokenBatch) -> Tensor:
        return torch.full((batch.num_rows, 1), 1.0 / batch.mask.numel())


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbounded(Regularizer):
    """Divides by an entropy that may be 0."""

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Tensor) -> Tensor:
        return scale / terms.entropy


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembers(Controller):
    """Keeps step numbers as keys, which JSON turns into text."""

    target: str = "surrogate.clip_high"

    def value(self, state: State, context: Context) -> float:
        return 0.2

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        return {**state, len(state): metrics["policy/entropy"]}  # type: ignore[dict-item]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flipped(Surrogate):
    """Value and gradient have nothing to do with each other."""

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        out = PPOClip()(terms, batch)
        return SurrogateLoss(
            loss=2 * out.loss.detach() - out.loss, clipped_low=out.clipped_low, clipped_high=out.clipped_high
        )


BROKEN: list[tuple[str, Component, Callable[[Case], None]]] = [
    ("regularizer", Frozen(), checks.gradient_is_that_of_the_value),
    ("surrogate", Flipped(), checks.gradient_is_that_of_the_value),
    ("regularizer", AcrossRows(), checks.row_local),
    ("regularizer", AcrossRows(), checks.independent_of_micro_batches),
    ("weight", OverPadding(), checks.independent_of_padding),
    ("weight", OverPadding(), checks.silent_off_mask),
    ("weight", NoiseOverPadding(), checks.independent_of_padding),
    ("weight", GlobalNoise(), checks.reproducible),
    ("weight", NotQuiteNeutral(), checks.neutral_is_plain),
    ("weight", ByPosition(), checks.independent_of_row_order),
    ("reduction", PerPart(), checks.independent_of_padding),
    ("regularizer", Unbounded(), checks.finite),
    ("controller", Remembers(), checks.state_survives_json),
]


@pytest.mark.parametrize(
    ("slot", "member", "check"), BROKEN, ids=lambda part: getattr(part, "__name__", type(part).__name__)
)
def test_a_broken_promise_is_noticed(slot: str, member: Component, check: Callable[[Case], None]) -> None:
    # A loss that is not finite is stopped by update() itself, with an error of its own.
    with pytest.raises((AssertionError, RuntimeError)):
        check(from_member(slot, member))


@pytest.mark.parametrize(
    ("slot", "member"),
    [
        ("weight", SeededNoise()),
        ("weight", Current()),
        ("regularizer", FrozenOnPurpose()),
        ("regularizer", EntropyBonus(coef=0.5)),
    ],
    ids=lambda part: type(part).__name__,
)
@pytest.mark.parametrize(
    "check", [check for check in CHECKS if check.__name__ != "neutral_is_plain"], ids=lambda c: c.__name__
)
def test_components_that_keep_their_promises_pass(slot: str, member: Component, check: Callable[[Case], None]) -> None:
    check(from_member(slot, member))
