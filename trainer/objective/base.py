"""The slots of an objective: what each may declare, what it is given, what it returns.

It must not know which method fills a slot: a method is a value given to it, never a branch in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.seeds import derive_seed
from trainer.objective.run_services import RunServices

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings
    from trainer.policy.prompt_head import PromptHead

State = dict[str, Any]
"""What a component remembers between steps: JSON-able, stored in every checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One sentence about a configuration."""

    message: str
    fatal: bool = True
    """False: the run makes sense, but the user should know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where in the run a component is asked, and what it may look at."""

    seed: int
    step: int
    """Training step, counted from 0."""
    num_steps: int
    epoch: int = 0
    """Pass over the training prompts, counted from 0 and by the prompts trained on."""
    num_epochs: int = 1
    """Whole passes of the run, counted likewise."""
    update: int = 0
    """Optimiser update within the step, counted from 0."""
    num_updates: int = 1
    surrogate: Any = None
    """The surrogate in use (a weight may need its clip thresholds)."""
    state: State = field(default_factory=dict)
    """The asking component's own state."""
    services: RunServices | None = None
    """Present in ``setup``, ``begin_step`` and ``columns``, for a shaping and an advantage."""

    @property
    def progress(self) -> float:
        """Fraction of the run that lies behind, 0 at the first step and 1 at the last."""
        return self.step / max(self.num_steps - 1, 1)

    def generator(self, purpose: str) -> torch.Generator:
        """A generator that depends on nothing but (seed, step, update, purpose)."""
        return torch.Generator().manual_seed(derive_seed(self.seed, self.step, self.update, purpose))


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What every slot member may declare. The defaults are those of a member that asks for nothing.

    Order of the hooks: ``setup`` once before the first step; then in every step ``begin_step`` and ``columns`` on the
    whole rollout batch, ``prepare`` on each mini-batch, ``end_step`` after the last update.
    """

    needs_current: ClassVar[bool] = False
    """``prepare`` looks at terms of the current policy: one more forward pass where micro-batches are smaller."""
    needs_old: ClassVar[bool] = False
    """``prepare`` reads what ``old_`` says of the batch: costs the same, in the first update of a step only."""
    needs_reference: ClassVar[bool] = False
    """Reads ``batch.ref_logprobs``: a frozen copy of the initial model is kept, one more forward pass a step."""
    needs_states: ClassVar[bool] = False
    """Asks ``services.states``: a frozen copy of the initial model is kept, one more forward pass a step, without its
    output layer."""
    about: ClassVar[About]
    """Source, status and departures; every member states its own."""
    neutral: ClassVar[dict[str, object] | None] = None
    """Field values with which the member changes nothing: plain GRPO bit for bit (tests/contract checks it). An empty
    mapping: whatever its fields are. None: no setting of it is plain GRPO."""
    detached: ClassVar[frozenset[str]] = frozenset()
    """Columns of ``TokenTerms`` that move its value without, or with another, gradient on purpose (a detached ratio);
    for all others tests/contract holds the gradient against finite differences."""

    @property
    def statistics(self) -> frozenset[str]:
        """Statistics of the current policy wanted beside log-probs and entropy (names as in
        :mod:`trainer.policy.distribution_stats`)."""
        return frozenset()

    @property
    def old_statistics(self) -> frozenset[str]:
        """Statistics at the weights that sampled, found in ``batch.extras["old_" + name]``."""
        return frozenset()

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        """What is wrong or surprising about this member in this run, before anything is queued."""
        return iter(())

    def initial_state(self) -> State:
        """State before the first step."""
        return {}

    def setup(self, state: State, context: Context) -> State:
        """State after what has to be done once, with the base model, before the first step."""
        return state

    def excluded_prompts(self, state: State) -> frozenset[str]:
        """Ids of training prompts that rollouts must not use."""
        return frozenset()

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        """Next state from the rollout batch of a step, before its first update."""
        return state

    def end_step(self, state: State, metrics: Mapping[str, float]) -> State:
        """Next state from the metrics of the step that has just ended."""
        return state

    def columns(self, batch: TokenBatch, context: Context) -> dict[str, Tensor]:
        """Columns [N, T] or [N] for ``batch.extras``, in the member's units, computed once per rollout batch."""
        return {}

    def prepare(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> dict[str, Tensor]:
        """Columns [N, T] or [N] for ``batch.extras``, in the units that the member states, computed once per
        mini-batch before it is split, without gradient.

        Anything that ranks, averages or draws across rows belongs here. ``terms`` is there if ``needs_current``.
        """
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantage(Component):
    """Rewards to advantages [N], once per rollout batch, without gradient."""

    def __call__(self, batch: TokenBatch) -> Float[Tensor, " N"]:
        """Advantage of each rollout from ``batch.rewards`` and ``batch.group``, units of the reward or standard
        deviations."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def in_run(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        """What ``__call__`` gives, for members that look at more of the run than the batch, in the same units;
        ``context`` has state and services."""
        return self(batch)

    def adjusted(self, terms: TokenTerms, batch: ScoredBatch) -> Float[Tensor, "N T"]:
        """Advantages as the surrogate sees them; ``terms`` are the current policy's, detached. Row-local, in the
        units of ``batch.advantages`` and 0 where ``batch.advantages`` is 0."""
        return batch.advantages


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping(Component):
    """Rewards to rewards, once per rollout, before advantages."""

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        """Shaped rewards from ``batch.rewards``, in units of the reward; ``context`` has seed, state and services."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight(Component):
    """A factor on the policy term, once per mini-batch before it is split, without gradient."""

    def __call__(self, batch: TokenBatch, terms: TokenTerms | None, context: Context) -> Float[Tensor, "N T"]:
        """Factors [N, T], dimensionless; 1 leaves a token alone. ``terms`` is there if ``needs_current``."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateLoss:
    """Policy loss per token and what its clipping did."""

    loss: Float[Tensor, "N T"]
    clipped_low: Bool[Tensor, "N T"]
    """Gradient removed because the ratio fell below the lower threshold."""
    clipped_high: Bool[Tensor, "N T"]
    """Gradient removed because the ratio rose above the upper threshold."""
    clipped_dual: Bool[Tensor, "N T"] | None = None
    """Gradient removed because the ratio rose above the dual clip at negative advantage. None: there is none."""

    @property
    def clipped(self) -> Bool[Tensor, "N T"]:
        """Mask of the tokens whose gradient any of them removed, dimensionless."""
        either = self.clipped_low | self.clipped_high
        return either if self.clipped_dual is None else either | self.clipped_dual


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate(Component):
    """``TokenTerms`` to a loss per token; differentiable and row-local."""

    forced_reduction: ClassVar[str | None] = None
    """Class name of the only reduction that makes sense with it."""
    clip_settings: ClassVar[tuple[str, ...]] = ()
    """Names of its fields that nothing but the ratio's distance from 1 brings to life."""

    @property
    def silent_without_advantage(self) -> bool:
        """Whether a token of advantage 0 gets exactly no gradient; rows without any advantage then skip the backward
        pass."""
        return True

    def prompt_head(self, width: int) -> PromptHead | None:
        """A network on the mean hidden state [D = ``width``] of a row's prompt, trained beside the policy, whose number
        is ``terms.extras["prompt_head"]`` where ``statistics`` name it; None: there is none."""
        return None

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        """Loss [N, T] before weights, mask and reduction, in units of the advantage."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Auxiliary:
    """Rows that a regularizer brings along."""

    rows: TokenBatch
    temperature: float
    """What their logits are divided by: the temperature that they were sampled and first measured at, which need not be
    the step's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularizer(Component):
    """A term added to the policy loss; differentiable and row-local."""

    @property
    def active(self) -> bool:
        """Whether it can send gradient to a row without any advantage, which otherwise skips the backward pass; False
        at the neutral setting."""
        return True

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        """Contributions, in units of the loss, whose plain sum is added to it; ``scale`` is the reduction's share of
        each token."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def auxiliary(self, context: Context) -> Auxiliary | None:
        """Rows of its own that go through the model with this mini-batch (stored responses); None for none."""
        return None

    def auxiliary_loss(self, terms: TokenTerms, rows: TokenBatch) -> Float[Tensor, "N T"]:
        """Contributions of :meth:`auxiliary` rows whose plain sum is added to the loss, in its units; row-local."""
        raise TypeError(f"{type(self).__name__} does not define auxiliary_loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller(Component):
    """Drives one numeric field of another component, ``target="regularizer.entropy_bonus.coef"``. Its ``begin_step``
    comes before advantages are made, so any coefficient can answer to the rollouts of its step."""

    target: str = ""

    def value(self, state: State, context: Context) -> float:
        """The coefficient of this step; asked after its own ``begin_step``, before advantages are made."""
        raise TypeError(f"{type(self).__name__} does not define value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction(Component):
    """From a matrix of token losses to a number, as one factor per token."""

    def scale(self, batch: TokenBatch) -> Float[Tensor, "N 1"]:
        """``s`` such that the loss is ``sum(s * mask * token_loss)``, dimensionless; taken over the whole
        mini-batch on all ranks."""
        raise TypeError(f"{type(self).__name__} does not define scale")
