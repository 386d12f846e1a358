"""Sampling in lockstep gives what ``LLM.generate`` gives, whatever grows together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.trainer.engine.conftest import SCHEDULED, Bench
from trainer.engine.base import Completion, Engine

pytest.importorskip("vllm")

from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

from trainer.engine.vllm_lockstep import Lockstep, serves


def sampled(engine: Engine, prompts: list[tuple[int, ...]], samples: int, max_tokens: int) -> list[list[Completion]]:
    return engine.generate(
        prompts, samples=samples, temperature=1.3, max_tokens=max_tokens, seeds=range(100, 100 + len(prompts))
    )


def by_vllm(bench: Bench, *asked: Any) -> list[list[Completion]]:
    """The same from ``LLM.generate``."""
    return sampled(bench.named(SCHEDULED), *asked)


def assert_same(ours: list[list[Completion]], theirs: list[list[Completion]]) -> None:
    """The same tokens, and log-probs but for the rounding of products of other shapes."""
    assert [len(group) for group in ours] == [len(group) for group in theirs]
    for generator, other in (
        (generator, other) for pair in zip(ours, theirs, strict=True) for generator, other in zip(*pair, strict=True)
    ):
        assert (generator.token_ids, generator.finish_reason) == (other.token_ids, other.finish_reason)
        assert generator.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def prompts_of(bench: Bench, count: int, length: int | None = None) -> list[tuple[int, ...]]:
    prompts = [bench.prompts[i % len(bench.prompts)] for i in range(count)]
    if length is None:
        return prompts
    return [(prompt * length)[: length - i % 3] for i, prompt in enumerate(prompts)]


CASES = {
    "one batch": (30, 4, 20),
    "more than grow at once": (40, 14, 12),
    "one token": (3, 2, 1),
    "one response": (1, 1, 30),
    "more samples than grow at once": (1, 520, 3),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [None, 124], ids=["short prompts", "a block ends in the response"])
def test_responses_are_those_of_vllm(bench: Bench, case: str, length: int | None) -> None:
    count, samples, max_tokens = CASES[case]
    engine: Any = bench.named("vllm")
    assert isinstance(engine._lockstep, Lockstep)
    asked = (prompts_of(bench, count, length), samples, max_tokens)
    ours = sampled(engine, *asked)
    assert_same(ours, by_vllm(bench, *asked))
    assert all(len(completion.entropies or ()) == len(completion.token_ids) for group in ours for completion in group)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.8, "top_p": 0.7}, {"temperature": 0.0}], ids=["top-p", "greedy"]
)
def test_truncated_and_greedy_responses_are_those_of_vllm(bench: Bench, settings: dict[str, float]) -> None:
    samples = 1 if settings["temperature"] == 0 else 4
    seeds = range(100, 100 + len(bench.prompts))

    def asked(name: str) -> list[list[Completion]]:
        return bench.named(name).generate(bench.prompts, samples=samples, max_tokens=20, seeds=seeds, **settings)

    ours = asked("vllm")
    assert_same(ours, asked(SCHEDULED))


def test_the_longest_length_ends_a_response(bench: Bench) -> None:
    engine = bench.named("vllm")
    length = bench.setup.max_length - 2
    asked = ([(bench.prompts[0] * length)[:length], bench.prompts[1]], 8, 30)
    ours = sampled(engine, *asked)
    assert {len(completion.token_ids) for completion in ours[0]} <= {1, 2}
    assert max(len(completion.token_ids) for completion in ours[1]) > 2
    assert_same(ours, by_vllm(bench, *asked))


@pytest.mark.parametrize("room", [1, 3, 7, 8])
def test_the_room_in_the_cache_decides_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Rows wait, enter in parts of a group, and inherit the blocks of rows that ended."""
    engine: Any = bench.named("vllm")
    asked = (prompts_of(bench, 3, 124), 4, 12)
    whole = sampled(engine, *asked)
    monkeypatch.setattr(engine._lockstep, "_blocks", 2 * room)  # two blocks a row
    entered = []
    read = Lockstep._prefill

    def counting(self: Lockstep, batch: Any, rows: Any, blocks: Any) -> Any:
        entered.append(len(rows))
        return read(self, batch, rows, blocks)

    monkeypatch.setattr(Lockstep, "_prefill", counting)
    parts = sampled(engine, *asked)
    assert max(entered) <= room and sum(entered) == 12 and len(entered) > 1
    assert_same(parts, whole)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every pass through the model from now on."""
    counts: list[int] = []
    forward = Lockstep._forward

    def counting(self: Lockstep, tokens: Any, positions: Any, **more: Any) -> Any:
        counts.append(len(tokens))
        return forward(self, tokens, positions, **more)

    monkeypatch.setattr(Lockstep, "_forward", counting)
    return counts


def test_a_prompt_is_read_once_for_all_its_samples(bench: Bench, passes: list[int]) -> None:
    sampled(bench.named("vllm"), bench.prompts, 5, 4)
    assert passes[0] == sum(map(len, bench.prompts))
    assert passes[1] <= 5 * len(bench.prompts)


def test_prompts_beyond_one_pass_are_read_in_several(
    bench: Bench, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = bench.named("vllm")
    whole = sampled(engine, bench.prompts, 1, 6)
    passes.clear()
    most = 2 * max(map(len, bench.prompts))
    monkeypatch.setattr(engine._lockstep._runner, "max_num_tokens", most)
    assert_same(sampled(engine, bench.prompts, 1, 6), whole)
    assert max(passes) <= most and passes[:3] == [sum(map(len, bench.prompts[i : i + 2])) for i in (0, 2, 4)]


@pytest.mark.parametrize("length", [0, -1], ids=["none", "as many as the engine holds"])
def test_a_prompt_without_room_for_a_token_is_named(bench: Bench, length: int) -> None:
    prompt = (bench.prompts[0] * 99)[: length % (bench.setup.max_length + 1)]
    with pytest.raises(ValueError, match=f"prompt 1 has {len(prompt)} tokens"):
        sampled(bench.named("vllm"), [bench.prompts[0], prompt], 2, 4)


def test_nothing_asked_nothing_sampled(bench: Bench) -> None:
    assert sampled(bench.named("vllm"), [], 2, 4) == []


def runner_with(spec: type, groups: int = 1, backends: int = 1, **flags: bool) -> Any:
    group = SimpleNamespace(kv_cache_spec=spec.__new__(spec))
    known = {"supports_mm_inputs": False, "uses_mrope": False} | flags
    return SimpleNamespace(
        kv_cache_config=SimpleNamespace(kv_cache_groups=[group] * groups),
        attn_groups=[[None] * backends],
        model_config=SimpleNamespace(is_encoder_decoder=False),
        **known,
    )


def test_only_plain_decoders_are_served() -> None:
    assert serves(runner_with(FullAttentionSpec))
    assert not serves(runner_with(SlidingWindowSpec))
    assert not serves(runner_with(FullAttentionSpec, groups=2))
    assert not serves(runner_with(FullAttentionSpec, backends=2))
    assert not serves(runner_with(FullAttentionSpec, supports_mm_inputs=True))
    assert not serves(runner_with(FullAttentionSpec, uses_mrope=True))
