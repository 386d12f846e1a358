"""DCPO's smoothed advantage: rewards are standardised with all earlier rewards of their prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.objective.advantages.grpo import GRPO
from trainer.objective.base import Context, State

Sums = list[float]
"""Of a prompt: steps with it, responses to it, their rewards, the squares of these."""

ALIKE = 1e-12
"""A variance below this is the rounding of equal rewards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed(GRPO):
    """GRPO's advantage mixed with a standardisation over all responses that a prompt has had in the run.

        new_i   = (reward_i - mean_group) / (std_group + eps)                          GRPO
        total_i = (reward_i - mean_total) / (std_total + eps)                          this step's responses included
        a, b    = (1 - 1/v) new + (1/v) total,   (1/v) new + (1 - 1/v) total           v-th step with this prompt
        advantage = a if |a| <= |b| else b

    The first time a prompt is seen it is GRPO. Later a group of equal rewards still has a signal, if the prompt has had
    others. Standard deviations are the samples' (ddof 1). Members that look at advantages see these.

    Shape: [N]; unit: standard deviations.
    """

    about: ClassVar[About] = About(
        source="DCPO (dynamic clipping), arXiv 2509.02333, from notes on its code",
        status="reconstructed",
        departures="sums are kept by prompt and come from the shaped rewards; which of two equal magnitudes is a's",
    )

    neutral: ClassVar[dict[str, object] | None] = None

    eps: float = 1e-6
    """Added to the standard deviation."""

    def initial_state(self) -> State:
        return {"seen": {}}

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        return {"seen": state["seen"] | _updated(state["seen"], _prompts(context), batch.rewards)}

    def in_run(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        prompts = _prompts(context)
        totals = _updated(context.state["seen"], prompts, batch.rewards)
        visits, count, total, squares = torch.tensor([totals[prompt] for prompt in prompts], dtype=torch.float64).T
        variance = (squares - total * total / count) / (count - 1).clamp(min=1)
        ever = (batch.rewards.double() - total / count) / (variance.clamp(min=0).sqrt() + self.eps)
        ever = ever.masked_fill(variance < ALIKE, 0.0)
        new = self(batch).double()
        first, second = ((1 - fraction) * new + fraction * ever for fraction in (1 / visits, 1 - 1 / visits))
        return torch.where(visits == 1, new, torch.where(first.abs() <= second.abs(), first, second)).float()


def _prompts(context: Context) -> list[str]:
    assert context.services is not None
    return [rollout.prompt.id for rollout in context.services.rollouts]


def _updated(seen: Mapping[str, Sums], prompts: Sequence[str], rewards: Tensor) -> dict[str, Sums]:
    """The sums of the prompts of this step, its rewards included."""
    after = {
        prompt: [seen[prompt][0] + 1, *seen[prompt][1:]] if prompt in seen else [1.0, 0.0, 0.0, 0.0]
        for prompt in prompts
    }
    for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
        sums = after[prompt]
        after[prompt] = [sums[0], sums[1] + 1, sums[2] + reward, sums[3] + reward * reward]
    return after
