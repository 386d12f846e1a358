"""FlowRL: responses become as likely as their reward says, instead of the best ever likelier. Row-local; called through
the ``surrogate`` slot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from trainer.batch.types import ScoredBatch, TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Surrogate, SurrogateLoss
from trainer.policy import prompt_head
from trainer.policy.prompt_head import PromptHead

MAX_WEIGHT = 10.0
"""Ceiling of a response's importance weight, as in the authors' code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRL(Surrogate):
    """Trajectory balance per token: the policy matches ``pi_ref^(1/|o|) exp(beta A) / Z`` instead of maximising A.

        delta_i = log Z(q_i) + mean_t logprobs - beta mean_t A - mean_t ref_logprobs
        w_i     = min(exp(sum_t (logprobs - old_logprobs)), 10)                          detached
        loss    = w_i delta_i^2       the same at every token, so that the mean per response is the mean over responses

    log Z is a network on the mean last hidden state of the prompt (``layers`` linear layers of its width; GELU, layer
    norm and dropout after all but the last), trained with the policy by the same optimiser; its gradient reaches the
    hidden states. Dropout is drawn for each row of a rollout batch, from the seed of the run and the step. Rows of
    advantage 0 learn as well.

    Shape [N, T]; delta in nats per token, loss in squares of that.
    """

    about: ClassVar[About] = About(
        source="FlowRL, arXiv 2509.15207; the authors' recipe for verl (flowrl)",
        status="released",
        departures=(
            "the mean is over all tokens of the prompt, theirs leaves out the last; a response keeps its dropout over "
            "the epochs of a step"
        ),
    )

    needs_reference: ClassVar[bool] = True
    forced_reduction: ClassVar[str | None] = "SequenceMean"
    detached: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    beta: Annotated[float, Range(1e-6, 10_000)] = 15.0
    """Nats per token of a response that is one unit of advantage better."""
    layers: Annotated[int, Range(1, 16)] = 3
    """Linear layers of log Z."""
    dropout: Annotated[float, Range(0, 0.99)] = 0.1
    """Share of the network's hidden numbers that is dropped."""

    @property
    def statistics(self) -> frozenset[str]:
        return frozenset({prompt_head.NAME})

    @property
    def silent_without_advantage(self) -> bool:
        return False

    def prompt_head(self, width: int) -> PromptHead | None:
        return PromptHead(width, layers=self.layers, dropout=self.dropout)

    def columns(self, batch: TokenBatch, context: Context) -> dict[str, Tensor]:
        if not self.dropout:
            return {}
        seeds = torch.randint(2**62, (batch.num_rows,), generator=context.generator("flowrl.dropout"))
        return {prompt_head.SEED: seeds}

    def __call__(self, terms: TokenTerms, batch: ScoredBatch) -> SurrogateLoss:
        assert batch.ref_logprobs is not None  # needs_reference
        mask, zero = batch.mask, torch.zeros((), device=batch.mask.device)
        tokens = mask.sum(dim=1, keepdim=True).clamp(min=1)
        given = self.beta * batch.advantages + batch.ref_logprobs
        gap = torch.where(mask, terms.logprobs - given, zero).sum(dim=1, keepdim=True) / tokens
        with torch.no_grad():
            moved = torch.where(mask, terms.logprobs - batch.old_logprobs, zero).sum(dim=1, keepdim=True)
            weight = moved.clamp(max=math.log(MAX_WEIGHT)).exp()
        delta = terms.extras[prompt_head.NAME] + gap
        never = torch.zeros_like(mask)
        return SurrogateLoss(loss=weight * delta * delta, clipped_low=never, clipped_high=never)
