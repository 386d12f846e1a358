"""Guidance by an expert's trace (CalibRL). The expert is measured once per rollout batch in ``columns``; called through
the ``regularizer`` slot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import leaky_relu

from trainer.batch.types import TokenBatch, TokenTerms
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Diagnostic, Regularizer

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings

RELEASED_THRESHOLD = 0.1
"""A response is correct when its reward exceeds this, as in the released code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibRL(Regularizer):
    """Correct responses are pushed up to the likelihood of an expert's answer and incorrect ones down from it.

        sign = 1 where the response is correct, else -1
        g    = -sign * ( logprobs_t - expert_logprobs_t )
        term = coef * scale * |advantages| * ( g where g > 0, else slope * g )

    ``expert_logprobs_t`` is the log-prob of the t-th token of the expert's answer to the same prompt, at the weights
    that sampled: constant, aligned by position and nothing else. Tokens beyond its end get no guidance, and so do
    responses to prompts without an expert. The expert's answer carries no loss of its own and is no member of the
    group. ``coef=0`` is plain GRPO.

    Shape [N, T]; coef dimensionless.
    """

    about: ClassVar[About] = About(
        source="CalibRL, arXiv 2602.20197, and its released code",
        status="released",
        departures=(
            "the expert is the task's own solution (Task.expert); the code goes on with values at padding beyond "
            "the expert's end; the paper's advantage has no standard deviation: see the preset"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: float = 0.1
    slope: float = 0.5
    """Of the guidance where the response is already on the right side of the expert."""

    def __post_init__(self) -> None:
        require(self.coef >= 0, "regularizer.calibrl.coef", self.coef, "a weight is at least 0")
        require(0 <= self.slope <= 1, "regularizer.calibrl.slope", self.slope, "give a slope from 0 to 1")

    @property
    def active(self) -> bool:
        return False  # a token without advantage gets no guidance

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if all(run.task.expert(prompt) is None for prompt in run.task.train_prompts()):
            yield Diagnostic(
                message=f"regularizer.calibrl needs an expert's answer, and {type(run.task).__name__} has none for "
                "any training prompt: give the lines of task.path a solution, or set task.solution_field"
            )

    def columns(self, batch: TokenBatch, context: Context) -> dict[str, Tensor]:
        services = context.services
        assert services is not None
        prompts = {rollout.prompt.id: rollout.prompt for rollout in services.rollouts}
        answers = {name: services.expert(prompt) for name, prompt in prompts.items()}
        experts = {name: answer for name, answer in answers.items() if answer is not None}
        column, guided = torch.zeros_like(batch.sampler_logprobs), torch.zeros_like(batch.mask)
        if experts:
            rows = services.collate(list(experts.values()))
            measured = services.measure(rows).logprobs
            traces = {name: measured[i, rows.mask[i]] for i, name in enumerate(experts)}
            column = column.to(measured.dtype)
            for row, rollout in enumerate(services.rollouts):
                trace = traces.get(rollout.prompt.id, measured[0, :0])
                first = int(batch.prompt_lengths[row]) - 1
                last = min(first + len(trace), int(batch.lengths[row]))
                column[row, first:last] = trace[: last - first]
                guided[row, first:last] = True
        return {"calibrl_expert": column, "calibrl_guided": guided & batch.mask}

    def __call__(self, terms: TokenTerms, batch: TokenBatch, scale: Float[Tensor, "N 1"]) -> Float[Tensor, "N T"]:
        assert batch.advantages is not None
        sign = torch.where(batch.raw_rewards > RELEASED_THRESHOLD, 1.0, -1.0)[:, None]
        guidance = leaky_relu(-sign * (terms.logprobs - batch.extras["calibrl_expert"]), self.slope)
        return self.coef * scale * batch.advantages.abs() * torch.where(batch.extras["calibrl_guided"], guidance, 0.0)
