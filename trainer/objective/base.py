"""The slots of an objective, and how they compose into one loss.

Called by ``update.py`` (mini-batches) and ``loop.py`` (once per step). It must not know which method fills a slot: a
method is a value given to it, never a branch in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.config import ConfigError, derive_seed, nearest
from trainer.types import TokenBatch, TokenTerms

State = dict[str, Any]
"""What a component remembers between steps: JSON-able, stored in every checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where in the run a component is asked, and what it may look at."""

    seed: int
    step: int
    """Training step, counted from 0."""
    num_steps: int
    epoch: int = 0
    """Pass over the training prompts, counted from 0."""
    num_epochs: int = 1
    update: int = 0
    """Optimiser update within the step, counted from 0."""
    num_updates: int = 1
    surrogate: Any = None
    """The surrogate in use (a weight may need its clip thresholds)."""
    state: State = field(default_factory=dict)
    """The asking component's own state."""

    @property
    def progress(self) -> float:
        """Fraction of the run that lies behind, 0 at the first step and 1 at the last."""
        return self.step / max(self.num_steps - 1, 1)

    def generator(self, purpose: str) -> torch.Generator:
        """A generator that depends on nothing but (seed, step, update, purpose)."""
        return torch.Generator().manual_seed(derive_seed(self.seed, self.step, self.update, purpose))


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What every slot member may declare. The defaults are those of a member that asks for nothing."""

    statistics: ClassVar[frozenset[str]] = frozenset()
    """Token statistics wanted beside log-probs and entropy (names in ``token_stats.STATISTICS``)."""
    needs_old_entropy: ClassVar[bool] = False
    """Reads ``batch.old_entropy`` before or during the first update."""
    needs_old_logprobs: ClassVar[bool] = False
    """Reads ``batch.old_logprobs`` when advantages or shaping are computed."""
    needs_current: ClassVar[bool] = False
    """Wants statistics of the *current* policy over the whole mini-batch: one more forward pass per mini-batch."""
    needs_reference: ClassVar[bool] = False
    """Reads ``batch.ref_logprobs``: a frozen copy of the initial model is kept."""
    reconstructed: ClassVar[bool] = False
    """The source was incomplete and this is our reading of it; shown wherever results are."""
    neutral: ClassVar[dict[str, object] | None] = None
    """Field values with which the member changes nothing: plain GRPO bit for bit (tests/contract checks it). An empty
    mapping: whatever its fields are. None: no setting of it is plain GRPO."""
    detached: ClassVar[frozenset[str]] = frozenset()
    """Columns of ``TokenTerms`` that move its value without, or with another, gradient on purpose (a detached ratio);
    for all others tests/contract holds the gradient against finite differences."""

    def initial_state(self) -> State:
        """State before the first step."""
        return {}

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        """Next state from the rollout batch of a step, before its first update."""
        return state

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        """Next state from the metrics of the step that has just ended."""
        return state

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> dict[str, Tensor]:
        """Columns [N, T] or [N] for ``batch.extras``, computed once per mini-batch before it is split, without
        gradient.

        Anything that ranks, averages or draws across rows belongs here. ``terms`` is there if ``needs_current``.
        """
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantage(Component):
    """Rewards to advantages [N], once per rollout batch, without gradient."""

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        """Advantage of each rollout from ``batch.rewards`` and ``batch.group``."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping(Component):
    """Rewards to rewards, once per rollout, before advantages."""

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        """Shaped rewards from ``batch.rewards``."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight(Component):
    """A factor on the policy term, once per mini-batch before it is split, without gradient."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        """Factors [N, T]; 1 leaves a token alone. ``terms`` is there if ``needs_current``."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateLoss:
    """Policy loss per token and what its clipping did."""

    loss: Float[Tensor, "N T"]
    clipped_low: Bool[Tensor, "N T"]
    """Gradient removed because the ratio fell below the lower threshold."""
    clipped_high: Bool[Tensor, "N T"]
    """Gradient removed because the ratio rose above the upper threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate(Component):
    """``TokenTerms`` to a loss per token; differentiable and row-local."""

    forced_reduction: ClassVar[str | None] = None
    """Class name of the only reduction that makes sense with it."""

    def __call__(self, terms: TokenTerms, batch: TokenBatch) -> SurrogateLoss:
        """Loss [N, T] before weights, mask and reduction."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularizer(Component):
    """A term added to the policy loss; differentiable and row-local."""

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        """Contributions whose plain sum is added to the loss; ``scale`` is the reduction's share of each token."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller(Component):
    """Drives one numeric field of another component, e.g. ``target="regularizer.entropy_bonus.coef"``."""

    target: str = ""

    def value(self, state: State, context: Context) -> float:
        """The coefficient of this step."""
        raise TypeError(f"{type(self).__name__} does not define value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction(Component):
    """From a matrix of token losses to a number, as one factor per token."""

    def scale(self, batch: TokenBatch) -> Float[Tensor, "N 1"]:
        """``s`` such that the loss is ``sum(s * mask * token_loss)``; taken over the whole mini-batch on all ranks."""
        raise TypeError(f"{type(self).__name__} does not define scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One member in each slot. Immutable: a controller's new coefficient gives a new objective."""

    shaping: Shaping
    advantage: Advantage
    surrogate: Surrogate
    reduction: Reduction
    weight: Mapping[str, Weight] = field(default_factory=dict)
    regularizer: Mapping[str, Regularizer] = field(default_factory=dict)
    controller: Mapping[str, Controller] = field(default_factory=dict)

    def components(self) -> Iterator[tuple[str, Component]]:
        """(path, member) of every slot, in a fixed order."""
        for slot in ("shaping", "advantage", "surrogate", "reduction"):
            yield slot, getattr(self, slot)
        for slot in ("weight", "regularizer", "controller"):
            for name, member in sorted(getattr(self, slot).items()):
                yield f"{slot}.{name}", member

    @property
    def statistics(self) -> frozenset[str]:
        """Token statistics that any member asks for."""
        return frozenset().union(*(member.statistics for _, member in self.components()))

    def any(self, need: str) -> bool:
        """Whether any member declares ``need`` (e.g. ``needs_current``)."""
        return any(getattr(member, need) for _, member in self.components())

    def initial_state(self) -> State:
        """State of every member before the first step."""
        return {path: member.initial_state() for path, member in self.components()}

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        """Members' states after seeing the rollout batch."""
        return {path: member.begin_step(state[path], batch, context) for path, member in self.components()}

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        """Members' states after seeing the step's metrics."""
        return {path: member.end_step(state[path], metrics) for path, member in self.components()}

    def controlled(self, state: State, context: Context) -> Objective:
        """This objective with every controller's coefficient of the step put in place."""
        objective = self
        for name, controller in sorted(self.controller.items()):
            path = f"controller.{name}"
            value = controller.value(state[path], dataclasses.replace(context, state=state[path]))
            objective = objective.with_value(controller.target, value)
        return objective

    def with_value(self, target: str, value: float) -> Objective:
        """A copy with the field at ``target`` set; raises :class:`ConfigError` when there is no such field."""
        path, _, key = target.rpartition(".")
        members = dict(self.components())
        known = [f"{at}.{spec.name}" for at, member in members.items() for spec in dataclasses.fields(member)]
        if target not in known:
            raise ConfigError(
                f"a controller's target={target!r} is no field of this objective: {nearest(target, known)}"
            )
        changed: Any = dataclasses.replace(members[path], **{key: value})  # type: ignore[arg-type]
        slot, _, name = path.partition(".")
        replaced: dict[str, Any] = {slot: {**getattr(self, slot), name: changed} if name else changed}
        return dataclasses.replace(self, **replaced)

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context, state: State) -> TokenBatch:
        """The mini-batch with ``weights`` and every member's columns, before it is split."""
        weights = torch.ones_like(batch.sampler_logprobs)
        extras = dict(batch.extras)
        for path, member in self.components():
            own = dataclasses.replace(context, surrogate=self.surrogate, state=state.get(path, {}))
            extras |= member.prepare(batch, terms, own)
            if isinstance(member, Weight):
                weights = weights * member(batch, terms, own)
        return dataclasses.replace(batch, weights=weights, extras=extras)

    def loss(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> tuple[Tensor, SurrogateLoss]:
        """Scalar loss of some rows and the surrogate's own output.

            loss = sum_{i,t} mask * ( scale * weights * surrogate ) + sum_r sum_{i,t} regularizer_r

        ``scale`` [N, 1] comes from the reduction over the *whole* mini-batch, so the losses of the parts add up to
        the loss of the whole. Values off the mask never enter, not even as NaN.
        """
        assert batch.weights is not None
        policy = self.surrogate(terms, batch)
        zero = torch.zeros((), dtype=policy.loss.dtype, device=policy.loss.device)
        total = torch.where(batch.mask, scale * batch.weights * policy.loss, zero).sum()
        for _, regularizer in sorted(self.regularizer.items()):
            total = total + torch.where(batch.mask, regularizer(terms, batch, scale), zero).sum()
        return total, policy
