"""Builds verified rollouts in one line for the tests of metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trainer.batch.types import Prompt, Rollout, Verdict


def _make(
    group: int = 0,
    *,
    ids: tuple[int, ...] = (1, 2, 0),
    logprobs: tuple[float, ...] | None = None,
    reward: float = 0.0,
    answer: str | None = None,
    solution: str | None = None,
    finish: str = "stop",
    num_context: int = 0,
    text: str = "t",
) -> Rollout:
    return Rollout(
        prompt=Prompt(id=f"p{group}", text="q"),
        prompt_ids=(9,),
        completion_ids=ids,
        sampler_logprobs=logprobs if logprobs is not None else (-1.0,) * len(ids),
        finish_reason=finish,
        text=text,
        group=group,
        weight_version=0,
        num_context=num_context,
        verdict=Verdict(reward=reward, answer=answer, solution=solution),
    )


@pytest.fixture
def make_rollout() -> Callable[..., Rollout]:
    """A verified rollout of prompt ``p<group>``; log-probs default to -1 nat per token."""
    return _make
