"""A penalty on what a response goes on to write after it has reached its answer (APR)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.batch.types import Rollout, TokenBatch
from trainer.contract.about import About
from trainer.contract.settings import require
from trainer.objective.base import Context, Diagnostic, Shaping
from trainer.objective.groups import needs_all_groups

if TYPE_CHECKING:
    from trainer.objective.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class APR(Shaping):
    """Reward minus a penalty in proportion to the length of the tail, up to a limit.

        reward'_i = reward_i - coef * min(tail_i / max_tail, 1)

    ``tail_i`` counts the characters after the anchor, the end of the step that first reaches the answer, as the task's
    verifier reports it (``Verdict.anchor``); it is 0 where the answer is never reached. What comes before the anchor
    costs nothing. ``coef=0`` changes nothing.

    Shape: [N]; unit: reward.
    """

    about: ClassVar[About] = About(
        source="APR, arXiv 2602.00760, abstract only",
        status="reconstructed",
        departures=(
            "the paper's reward, normalisation and anchor detector are unknown; coef, max_tail and the unit are assumed"
        ),
    )

    neutral: ClassVar[dict[str, object] | None] = {"coef": 0.0}

    coef: float = 0.5
    """Largest penalty, in rewards (assumed)."""
    max_tail: int = 20
    """Characters of tail from which on the penalty is the largest (assumed)."""

    def __post_init__(self) -> None:
        require(self.coef >= 0, "shaping.coef", self.coef, "give a penalty of at least 0")
        require(self.max_tail >= 1, "shaping.max_tail", self.max_tail, "give a number of characters, at least 1")

    def diagnostics(self, run: RunSettings) -> Iterator[Diagnostic]:
        if self.coef:
            yield from needs_all_groups(run, "shaping APR")
        prompt = run.task.train_prompts()[0]
        solution = run.task.expert(prompt)
        if solution is None or run.task.verify(prompt, solution).anchor is None:
            yield Diagnostic(
                message="shaping APR has to know where a response first reaches its answer, and the verifier of "
                f"{type(run.task).__name__} does not say: use task=countdown, or shaping=overlong"
            )

    def __call__(self, batch: TokenBatch, context: Context) -> Float[Tensor, " N"]:
        assert context.services is not None
        tails = torch.tensor([float(tail(rollout)) for rollout in context.services.rollouts])
        return batch.rewards - self.coef * (tails / self.max_tail).clamp(max=1)


def tail(rollout: Rollout) -> int:
    """Characters of the response after its anchor, 0 without one."""
    anchor = rollout.verdict.anchor if rollout.verdict else None
    return 0 if anchor is None else len(rollout.text) - anchor
