"""The entropy ledger of a step: every optimiser update's predicted change of the mean entropy, split into its causes.

    g_H . delta = sum_i I_i + regularizers + momentum + weight decay        (an identity, for every update)

``g_H`` is the gradient of the mean entropy of a fixed sample of the step's responses, ``delta`` what the optimiser did
to the weights. What was measured on the same contexts minus what is predicted is second order: the drift that noise
alone can cause. It must leave weights, gradients, optimiser and random states as they were.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from trainer.batch.types import TokenBatch, TokenTerms, masked_sum
from trainer.contract.seeds import derive_seed
from trainer.ledger.influence import TokenInfluence, contest, deciles, quadrants, tenths, token_influence
from trainer.ledger.movement import movement
from trainer.ledger.tangents import along_terms, entropy_gradient, terms_along, trained_parameters
from trainer.metrics.accounting import SUM_P2_LOGP_H
from trainer.objective.base import Context, Regularizer, State
from trainer.objective.objective import Objective
from trainer.update.gradient import Differentiated, Learner, measure

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One optimiser update; everything in nats of the mean entropy of the ledger's contexts."""

    entropy: float
    """Before the update."""
    predicted: float
    """g_H . delta."""
    gradient: float
    """-g_H . P g: policy term and regularizers together, from the gradient itself."""
    momentum: float
    weight_decay: float
    members: Mapping[str, float]
    """Policy term and each regularizer, from the tokens; together ``gradient`` where all rows were looked at."""
    tokens: TokenInfluence
    exact: bool
    """Whether the tokens' influence is by forward mode."""


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Watches the updates of one step. ``contexts`` are the rows whose entropy is accounted for."""

    learner: Learner
    objective: Objective
    contexts: TokenBatch
    rows: int
    """Responses of each mini-batch whose tokens are looked at, rounded up to whole prompts; 0: all."""
    entries: list[LedgerEntry] = field(default_factory=list)
    examined: list[TokenBatch] = field(default_factory=list)
    """The rows of each mini-batch whose tokens were looked at."""
    _before: dict[str, Tensor] = field(default_factory=dict)
    _slope: dict[str, Tensor] = field(default_factory=dict)

    def before_step(self, result: Differentiated, context: Context, state: State, clip: float) -> None:
        """Called with the mini-batch's clipped gradient in place. ``clip`` is the factor of gradient clipping."""
        learner, policy = self.learner, self.learner.policy
        parameters = trained_parameters(policy)
        entropy, self._slope = entropy_gradient(policy, self.contexts, learner.ranks)
        masters = {name: learner.masters[value] for name, value in parameters.items()}
        self._before = {name: value.detach().clone() for name, value in masters.items()}
        along, momentum, decay, gradient = {}, 0.0, 0.0, 0.0
        with torch.no_grad():
            for group in learner.optimizer.param_groups:
                owned = {id(value) for value in group["params"]}
                for name, value in masters.items():
                    if id(value) not in owned or value.grad is None:
                        continue
                    moves = movement(learner.optimizer, group, value, value.grad)
                    along[name] = moves.preconditioner * self._slope[name]
                    gradient -= _dot(along[name], value.grad)
                    momentum += _dot(self._slope[name], moves.momentum)
                    decay += _dot(self._slope[name], moves.decay)
            direction = {name: along.get(name, torch.zeros_like(value)) * clip for name, value in masters.items()}
        rows, scale, share = self._sample(result.batch, context)
        values, slopes, exact = _along(learner, rows, direction, self.objective.statistics | {SUM_P2_LOGP_H})
        tokens, members = token_influence(self.objective, values, slopes, rows, scale, share=share)
        members |= self._auxiliary(direction, context, state)
        self.examined.append(rows)
        self.entries.append(
            LedgerEntry(
                entropy=entropy,
                predicted=0.0,
                gradient=gradient,
                momentum=momentum,
                weight_decay=decay,
                members=members,
                tokens=tokens,
                exact=exact,
            )
        )

    def after_step(self) -> None:
        """Called when the optimiser has moved the weights."""
        masters = self.learner.masters
        predicted = sum(
            _dot(self._slope[name], masters[value].detach() - self._before[name])
            for name, value in trained_parameters(self.learner.policy).items()
        )
        self.entries[-1] = replace(self.entries[-1], predicted=predicted)
        self._before, self._slope = {}, {}

    def _sample(self, mini: TokenBatch, context: Context) -> tuple[TokenBatch, Tensor, float]:
        """Rows of the mini-batch to look at, the reduction's factors [n, 1] of their tokens, and how many rows of the
        mini-batch each stands for.

        All responses to some of the prompts, because a prompt's advantages are relative to one another. On the default
        run a quarter of the prompts gives the policy term with an error as large as itself (``ledger/tokens_error``),
        as a quarter of the responses does: single steps want ``accounting.ledger_rows=0``, sums over a run do not.
        """
        scale, prompts = self.objective.reduction.scale(mini), mini.group.unique()
        count = -(-self.rows * len(prompts) // mini.num_rows) if self.rows else len(prompts)
        if count >= len(prompts):
            return mini, scale, 1.0
        generator = torch.Generator().manual_seed(derive_seed(context.seed, context.step, context.update, "ledger"))
        chosen = prompts[torch.randperm(len(prompts), generator=generator)[:count]]
        index = torch.isin(mini.group, chosen).nonzero().squeeze(1)
        return mini.rows(index), scale[index], len(prompts) / count

    def _auxiliary(self, direction: Mapping[str, Tensor], context: Context, state: State) -> dict[str, float]:
        """What the rows that regularizers bring along did to the entropy, nats."""
        by_name: dict[str, float] = {}
        for name, regularizer, extra in self.objective.auxiliary(context, state):
            values, slopes, _ = _along(self.learner, extra.rows, direction, regularizer.statistics, extra.temperature)
            by_name[f"auxiliary.{name}"] = -_auxiliary_slope(regularizer, values, slopes, extra.rows)
        return by_name

    def metrics(self) -> dict[str, float]:
        """The ``ledger/*`` metrics of the step; one more forward pass over the contexts, at the weights now. None where
        every update was skipped."""
        if not self.entries:
            return {}
        after = measure(self.learner, self.contexts).entropy[self.contexts.mask]
        return summary(self.entries, float(after.double().mean()) - self.entries[0].entropy)


def summary(entries: Sequence[LedgerEntry], measured: float) -> dict[str, float]:
    """The ``ledger/*`` metrics of a step's updates; ``measured`` is the change of mean entropy over all of them, nats.

    What the gradient did is known from the gradient itself, so ``policy``, ``regularizers``, ``momentum`` and
    ``weight_decay`` add up to ``predicted`` however few rows were looked at.
    """

    def total(name: str) -> float:
        return math.fsum(getattr(entry, name) for entry in entries)

    members: dict[str, float] = defaultdict(float)
    tokens: dict[str, float] = defaultdict(float)
    for entry in entries:
        for name, value in entry.members.items():
            members[name] += value
        for name, value in shares(entry.tokens).items():
            tokens[name] += value
    regularizers = math.fsum(value for name, value in members.items() if name != "policy")
    policy = total("gradient") - regularizers
    agreed = agreement([entry.tokens for entry in entries])
    metrics = {
        "measured": measured,
        "predicted": total("predicted"),
        "residual": measured - total("predicted"),
        "policy": policy,
        "regularizers": regularizers,
        "momentum": total("momentum"),
        "weight_decay": total("weight_decay"),
        "identity_error": abs(total("predicted") - total("gradient") - total("momentum") - total("weight_decay")),
        "tokens_error": abs(math.fsum(members.values()) - total("gradient")),
        "exact": float(all(entry.exact for entry in entries)),
    }
    if agreed is not None:
        metrics |= {"policy_agreed": agreed, "policy_noise": policy - agreed}
    metrics |= {name.replace(".", "_"): value for name, value in members.items() if name != "policy"}
    metrics |= tokens | {f"corr_{name}": value for name, value in contest(entry.tokens for entry in entries).items()}
    return {f"ledger/{name}": value for name, value in metrics.items()}


def shares(tokens: TokenInfluence) -> dict[str, float]:
    """The policy term by quadrant, by decile of the token's entropy and by tenth of the response, nats."""
    masks = quadrants(tokens)
    masks |= {f"entropy_decile_{number}": mask for number, mask in enumerate(deciles(tokens.entropy))}
    masks |= {f"position_tenth_{number}": mask for number, mask in enumerate(tenths(tokens.position))}
    return {name: tokens.share * float(tokens.influence[mask].double().sum()) for name, mask in masks.items()}


def agreement(updates: Sequence[TokenInfluence]) -> float | None:
    """The part of a step's policy term that two half-batches agree on, nats: ``2 sign min(|a|, |b|)`` with ``a`` and
    ``b`` the sums over every other prompt of the step and over the rest, 0 where their signs differ. What repeats is
    learning; what does not is noise. None where the updates looked at fewer than two prompts.

    Over the updates together: with many of them the tokens looked at in each are those of a single prompt.
    """
    influence = torch.cat([part.share * part.influence.double() for part in updates])
    prompts, index = torch.cat([part.group for part in updates]).unique(return_inverse=True)
    if len(prompts) < 2:
        return None
    first, second = (float(influence[index % 2 == half].sum()) for half in (0, 1))
    return 2 * math.copysign(min(abs(first), abs(second)), first) if first * second > 0 else 0.0


def _along(
    learner: Learner,
    rows: TokenBatch,
    direction: Mapping[str, Tensor],
    statistics: Iterable[str],
    temperature: float | None = None,
) -> tuple[TokenTerms, TokenTerms, bool]:
    """Terms, their derivatives along ``direction``, and whether those are exact."""
    along = partial(
        terms_along, learner.policy, rows, direction, learner.ranks, statistics=statistics, temperature=temperature
    )
    try:
        return *along(), True
    except NotImplementedError as error:  # and no other: out of memory is no reason for differences
        log.info("influence by central differences, for an operator has no forward mode: %s", error)
        return *along(exact=False), False


def _auxiliary_slope(regularizer: Regularizer, values: TokenTerms, slopes: TokenTerms, rows: TokenBatch) -> float:
    slope = along_terms(lambda terms: {"": regularizer.auxiliary_loss(terms, rows)}, values, slopes)
    return float(masked_sum(slope[""].double(), rows.mask))


def _dot(first: Tensor, second: Tensor) -> float:
    return float((first.double() * second.double()).sum())
