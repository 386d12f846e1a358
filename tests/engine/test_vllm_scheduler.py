"""The scheduler that takes the short way, and the sampler that draws ahead, sample what vLLM's own do, to the bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.conftest import Bench
from trainer.engine.base import Completion, Engine

pytest.importorskip("vllm")

from vllm.v1.core.sched.scheduler import Scheduler

from trainer.engine.vllm_scheduler import LockstepScheduler


def sampled(engine: Engine, prompts: list[tuple[int, ...]], samples: int, max_tokens: int) -> list[list[Completion]]:
    return engine.generate(
        prompts, samples=samples, temperature=1.3, max_tokens=max_tokens, seeds=range(100, 100 + len(prompts))
    )


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many steps took which way."""
    counted: Counter[str] = Counter()
    decide = LockstepScheduler._only_decodes

    def counting(self: LockstepScheduler) -> bool:
        short = decide(self)
        counted["short" if short else "long"] += 1
        return short

    monkeypatch.setattr(LockstepScheduler, "_only_decodes", counting)
    return counted


CASES = {
    "one batch": (30, 4, 20),
    "more than fit at once": (40, 14, 12),
    "one token": (3, 2, 1),
    "one response": (1, 1, 30),
    "more tokens than numbers drawn at a time": (3, 2, 70),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [None, 124], ids=["short prompts", "a block ends in the response"])
def test_responses_are_those_of_vllms_own_scheduler(
    bench: Bench, steps: Counter[str], monkeypatch: pytest.MonkeyPatch, case: str, length: int | None
) -> None:
    count, samples, max_tokens = CASES[case]
    engine: Any = bench.named("vllm")
    prompts = [bench.prompts[i % len(bench.prompts)] for i in range(count)]
    if length is not None:
        max_tokens = min(max_tokens, bench.setup.max_length - length)
        prompts = [(prompt * length)[: length - i % 3] for i, prompt in enumerate(prompts)]
    ours = sampled(engine, prompts, samples, max_tokens)
    assert (steps["short"] > 0) == (max_tokens > 1)
    if length is not None and max_tokens > 10:
        assert steps["long"] >= 2, "a prefill, and a step for requests that need a new block"
    for name in ("schedule", "update_from_output"):
        monkeypatch.setattr(LockstepScheduler, name, getattr(Scheduler, name))
    monkeypatch.setattr(engine, "_scheduler", None)
    worker = engine._llm.llm_engine.engine_core.engine_core.model_executor.driver_worker
    sampler = worker.model_runner.sampler.topk_topp_sampler
    monkeypatch.setattr(sampler, "forward", sampler.forward_cpu)
    steps.clear()
    theirs = sampled(engine, prompts, samples, max_tokens)
    assert not steps
    assert theirs == [[replace(completion, entropies=None) for completion in group] for group in ours]


def test_nothing_is_held_back_for_ever(bench: Bench) -> None:
    engine: Any = bench.named("vllm")
    sampled(engine, list(bench.prompts), 3, 10)
    scheduler = engine._llm.llm_engine.engine_core.engine_core.scheduler
    assert isinstance(scheduler, LockstepScheduler)
    assert not scheduler._held and not scheduler._complete_ones and not scheduler.requests and not scheduler.running
