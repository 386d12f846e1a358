"""How the members of the slots compose into one loss.

It must not know which method fills a slot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.settings import ConfigError, nearest
from trainer.objective.base import (
    Advantage,
    Auxiliary,
    Component,
    Context,
    Controller,
    Diagnostic,
    Reduction,
    Regularizer,
    Shaping,
    State,
    Surrogate,
    SurrogateLoss,
    Weight,
)

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings

ROLLOUT_TEMPERATURE, REFERENCE_STEP = "rollout.temperature", "reference.step"
RUN_TARGETS = (ROLLOUT_TEMPERATURE, REFERENCE_STEP)
"""Numbers of the run, and of no member, that a controller may drive: what rollouts are sampled at, and the step whose
first weights are the reference. They are asked for before the rollouts of a step."""


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
        """Statistics of the current policy that any member asks for."""
        return frozenset().union(*(member.statistics for _, member in self.components()))

    @property
    def old_statistics(self) -> frozenset[str]:
        """Statistics at the sampling weights that any member asks for."""
        return frozenset().union(*(member.old_statistics for _, member in self.components()))

    @property
    def needs_current(self) -> bool:
        """Whether any member prepares with terms of the current policy."""
        return any(member.needs_current for _, member in self.components())

    @property
    def needs_old(self) -> bool:
        """Whether any member prepares with terms at the weights that sampled."""
        return any(member.needs_old for _, member in self.components())

    @property
    def needs_reference(self) -> bool:
        """Whether any member reads the reference model's log-probs."""
        return any(member.needs_reference for _, member in self.components())

    @property
    def needs_states(self) -> bool:
        """Whether any member asks for hidden states of the reference model."""
        return any(member.needs_states for _, member in self.components())

    @property
    def keeps_reference(self) -> bool:
        """Whether there has to be a reference model at all."""
        return self.needs_reference or self.needs_states

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        """What any member finds wrong or surprising about the run."""
        for _, member in self.components():
            yield from member.diagnostics(run)

    def initial_state(self) -> State:
        """State of every member before the first step."""
        return {path: member.initial_state() for path, member in self.components()}

    def setup(self, state: State, context: Context) -> State:
        """Members' states after what they do once, before the first step."""
        return {path: member.setup(state[path], context) for path, member in self.components()}

    def excluded_prompts(self, state: State) -> frozenset[str]:
        """Ids of training prompts that any member keeps out of the rollouts."""
        return frozenset().union(*(member.excluded_prompts(state[path]) for path, member in self.components()))

    def begin_controllers(self, state: State, batch: TokenBatch, context: Context) -> State:
        """Controllers' states after seeing the rollout batch, which has no advantages yet."""
        return {path: member.begin_step(state[path], batch, context) for path, member in self._begun(controllers=True)}

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        """The other members' states after seeing the rollout batch."""
        return {path: member.begin_step(state[path], batch, context) for path, member in self._begun(controllers=False)}

    def _begun(self, *, controllers: bool) -> Iterator[tuple[str, Component]]:
        return ((path, member) for path, member in self.components() if isinstance(member, Controller) == controllers)

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        """Members' states after seeing the step's metrics."""
        return {path: member.end_step(state[path], metrics) for path, member in self.components()}

    def with_columns(self, state: State, batch: TokenBatch, context: Context) -> TokenBatch:
        """The rollout batch with every member's columns."""
        extras = dict(batch.extras)
        for path, member in self.components():
            extras |= member.columns(batch, dataclasses.replace(context, state=state[path]))
        return dataclasses.replace(batch, extras=extras)

    def rows_with_gradient(self, batch: TokenBatch) -> Bool[Tensor, " N"]:
        """Mask, dimensionless, of rows that can carry gradient. The others (no advantage, no regularizer) may skip
        the backward pass."""
        assert batch.advantages is not None
        everywhere = not self.surrogate.silent_without_advantage or any(
            regularizer.active for regularizer in self.regularizer.values()
        )
        return (
            torch.full_like(batch.truncated, True) if everywhere else ((batch.advantages != 0) & batch.mask).any(dim=1)
        )

    def controlled(self, state: State, context: Context) -> Objective:
        """This objective with every controller's coefficient of the step put in place."""
        objective = self
        for name, controller in sorted(self.controller.items()):
            if controller.target not in RUN_TARGETS:
                objective = objective.with_value(controller.target, self._value(name, state, context))
        return objective

    def driven(self, target: str, state: State, context: Context) -> float | None:
        """What a controller says one of :data:`RUN_TARGETS` is in this step; None: nobody drives it."""
        names = [name for name, controller in self.controller.items() if controller.target == target]
        return self._value(names[0], state, context) if names else None

    def _value(self, name: str, state: State, context: Context) -> float:
        own_state = state[f"controller.{name}"]
        return self.controller[name].value(own_state, dataclasses.replace(context, state=own_state))

    def with_value(self, target: str, value: float) -> Objective:
        """A copy with the number at ``target`` set; raises :class:`ConfigError` when there is none."""
        path, _, key = target.rpartition(".")
        slot, _, name = path.partition(".")
        members = dict(self.components())
        known = [
            f"{at}.{spec.name}"
            for at, member in members.items()
            for spec in dataclasses.fields(member)
            if not isinstance(getattr(member, spec.name), bool | str)
        ]
        if target not in known:
            add = f"add {slot}=[{name}], or " if name and path not in members else ""
            why = f"a controller's target={target!r} is no number of this objective"
            raise ConfigError(f"{why}: {add}{nearest(target, [*known, *RUN_TARGETS])}")
        changed: Any = dataclasses.replace(members[path], **{key: value})
        replaced: dict[str, Any] = {slot: {**getattr(self, slot), name: changed} if name else changed}
        return dataclasses.replace(self, **replaced)

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context, state: State) -> TokenBatch:
        """The mini-batch with ``weights`` and every member's columns, before it is split.

        Later members see the columns of earlier ones: a weight may ask the surrogate what it clips.
        """
        weights = torch.ones_like(batch.sampler_logprobs)
        for path, member in self.components():
            member_context = dataclasses.replace(context, surrogate=self.surrogate, state=state.get(path, {}))
            batch = dataclasses.replace(batch, extras=batch.extras | member.prepare(batch, terms, member_context))
            if isinstance(member, Weight):
                weights = weights * member(batch, terms, member_context)
        return dataclasses.replace(batch, weights=weights)

    def auxiliary(self, context: Context, state: State) -> Iterator[tuple[str, Regularizer, Auxiliary]]:
        """Every regularizer's own rows for this mini-batch, with name and regularizer that judges them."""
        for name, regularizer in sorted(self.regularizer.items()):
            member_context = dataclasses.replace(context, state=state.get(f"regularizer.{name}", {}))
            auxiliary_rows = regularizer.auxiliary(member_context)
            if auxiliary_rows is not None:
                yield name, regularizer, auxiliary_rows

    def policy_loss(self, terms: TokenTerms, batch: TokenBatch) -> SurrogateLoss:
        """The surrogate's loss [N, T] of some rows, in units of the advantage, with advantages as it sees them."""
        scored = ScoredBatch.of(batch)
        adjusted = self.advantage.adjusted(terms.detach(), scored)
        return self.surrogate(terms, dataclasses.replace(scored, advantages=adjusted))

    def loss(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> tuple[Tensor, SurrogateLoss]:
        """Scalar loss of some rows (units of the reward) and the surrogate's own output.

            loss = sum_{i,t} mask * ( scale * weights * surrogate ) + sum_r sum_{i,t} regularizer_r

        ``scale`` [N, 1] comes from the reduction over the *whole* mini-batch, so the losses of the parts add up to
        the loss of the whole. Values off the mask never enter, not even as NaN.
        """
        parts, policy = self.token_losses(terms, batch, scale)
        first, *others = (part.sum() for part in parts.values())
        return sum(others, start=first), policy

    def token_losses(
        self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]
    ) -> tuple[dict[str, Float[Tensor, "N T"]], SurrogateLoss]:
        """Each token's contribution to :meth:`loss`, by member: ``policy`` first, then ``regularizer.<name>``; 0 off
        the mask; in units of the loss. And the surrogate's own output."""
        assert batch.weights is not None
        policy = self.policy_loss(terms, batch)
        zero = torch.zeros((), dtype=policy.loss.dtype, device=policy.loss.device)
        parts = {"policy": torch.where(batch.mask, scale * batch.weights * policy.loss, zero)}
        for name, regularizer in sorted(self.regularizer.items()):
            parts[f"regularizer.{name}"] = torch.where(batch.mask, regularizer(terms, batch, scale), zero)
        return parts, policy
