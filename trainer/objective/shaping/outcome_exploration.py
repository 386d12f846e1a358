"""Outcome-based exploration: a bonus for final answers that a prompt has seldom had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import Range
from trainer.objective.base import Context, Diagnostic, Shaping, State
from trainer.objective.groups import group_statistics, needs_all_groups

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeExploration(Shaping):
    """Two bonuses on the final answer, as the verifier reads it.

        reward'_i = reward_i + historical / sqrt(N_i) - batch * same_i / G
        N_i       = responses of the run with the prompt and the answer of i, those of this step included
        same_i    = other responses of the group with the answer of i

    A response without a readable answer gets neither. An advantage that takes off the group's mean takes it off the
    bonus as well (UCB-mean). One that divides by the deviation blows the bonus up where all rewards are equal:
    ``advantage=dr_grpo`` does not. Both coefficients 0: nothing changes.

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="Outcome-based Exploration for LLM Reasoning, arXiv 2509.06941: the abstract and general knowledge",
        status="reconstructed",
        departures=(
            "the bonus goes through the advantage instead of being added to it; counts take in the present step; their "
            "UCB-con, the bonus minus a constant, is the same under any advantage with a baseline"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"historical": 0.0, "batch": 0.0}

    historical: Annotated[float, Range(0, 1000)] = 0.1
    """Bonus of the first response with an answer (c; assumed)."""
    batch: Annotated[float, Range(0, 1000)] = 0.0
    """What a response would lose if all of a large group had its answer."""

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        return needs_all_groups(run, "shaping OutcomeExploration")

    def initial_state(self) -> State:
        return {"counts": {}}

    def begin_step(self, state: State, batch: TokenBatch, context: Context) -> State:
        return {"counts": _updated_counts(state["counts"], _outcomes(context))}

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        outcomes = _outcomes(context)
        counts = _updated_counts(context.state["counts"], outcomes)
        placed = list(zip(batch.group.tolist(), outcomes, strict=True))
        together = Counter(placed)
        occurrences = [0 if answer is None else counts[prompt][answer] for prompt, answer in outcomes]
        same = [0 if place[1][1] is None else together[place] - 1 for place in placed]
        seldom = torch.tensor([0.0 if count == 0 else count**-0.5 for count in occurrences], dtype=torch.float64)
        crowd = torch.tensor(same, dtype=torch.float64) / group_statistics(batch.rewards, batch.group).size
        return batch.rewards + (self.historical * seldom - self.batch * crowd).float()


Outcome = tuple[str, str | None]
"""Prompt and final answer; None: no answer could be read."""


def _outcomes(context: Context) -> list[Outcome]:
    assert context.services is not None
    rollouts = context.services.rollouts
    return [(rollout.prompt.id, rollout.verdict.answer if rollout.verdict else None) for rollout in rollouts]


def _updated_counts(counts: dict[str, dict[str, int]], outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """The counts by prompt and answer with those of ``outcomes`` added."""
    after = {prompt: dict(answers) for prompt, answers in counts.items()}
    for prompt, answer in outcomes:
        if answer is not None:
            answers = after.setdefault(prompt, {})
            answers[answer] = answers.get(answer, 0) + 1
    return after
