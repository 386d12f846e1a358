"""Diversity against hand counts, a brute-force BLEU, and a clock."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.batch.types import Rollout
from trainer.metrics.diversity import (
    ORDER,
    answer_entropy,
    distinct_per_group,
    diversity_metrics,
    expectation_adjusted_distinct,
    self_bleu,
)
from trainer.metrics.ngrams import flatten_responses, gram_tables


def distinct(completions: Sequence[Sequence[int]], groups: Sequence[int], n: int) -> float:
    """Mean of distinct-n over the prompts that have n-grams."""
    responses = flatten_responses(completions, groups)
    values = distinct_per_group(gram_tables(responses, n)[n - 1], responses)
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def bleu(
    completions: Sequence[Sequence[int]], groups: Sequence[int], *, order: int = ORDER, smoothing: float = 0.0
) -> float:
    responses = flatten_responses(completions, groups)
    return self_bleu(gram_tables(responses, order), responses, smoothing)


def brute_force_self_bleu(
    completions: Sequence[Sequence[int]], groups: Sequence[int], order: int, smoothing: float
) -> float:
    """The definition of self_bleu's docstring, pair by pair."""

    def grams(ids: Sequence[int], n: int) -> Counter[tuple[int, ...]]:
        return Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))

    scores = []
    for i, ids in enumerate(completions):
        others = [c for j, c in enumerate(completions) if j != i and groups[j] == groups[i]]
        if not others or not ids:
            continue
        logs = []
        for n in range(1, min(order, len(ids)) + 1):
            own = grams(ids, n)
            matched = sum(min(count, max(grams(o, n)[gram] for o in others)) for gram, count in own.items())
            precision = (matched or smoothing) / sum(own.values())
            logs.append(math.log(precision) if precision else -math.inf)
        closest = min((abs(len(o) - len(ids)), len(o)) for o in others)[1]
        scores.append(math.exp(min(0.0, 1 - closest / len(ids)) + sum(logs) / len(logs)))
    return float(np.mean(scores)) if scores else math.nan


def test_distinct_n_by_hand() -> None:
    # Prompt 0: tokens 1 2 1 | 1 2 -> 2 different of 5; pairs 12 21 | 12 -> 2 different of 3 (no pair spans responses).
    # Prompt 1: tokens 5 5 5 5 -> 1 of 4; pairs 55 55 55 -> 1 of 3.
    completions, groups = [(1, 2, 1), (5, 5, 5, 5), (1, 2)], [0, 1, 0]
    assert distinct(completions, groups, 1) == pytest.approx((2 / 5 + 1 / 4) / 2)
    assert distinct(completions, groups, 2) == pytest.approx((2 / 3 + 1 / 3) / 2)
    # Triples: prompt 0 has one of one, prompt 1 one of two. Nobody has five tokens.
    assert distinct(completions, groups, 3) == pytest.approx((1 + 1 / 2) / 2)
    assert math.isnan(distinct(completions, groups, 5))


def test_same_tokens_in_two_prompts_are_not_shared() -> None:
    assert distinct([(1, 2), (1, 2)], [0, 1], 1) == 1.0
    assert distinct([(1, 2), (1, 2)], [0, 0], 1) == 0.5


def test_identical_responses_have_self_bleu_one_and_disjoint_ones_zero() -> None:
    assert bleu([(1, 2, 3, 4, 5)] * 3, [0] * 3) == pytest.approx(1.0)
    assert bleu([(1, 2), (1, 2)], [0, 0]) == pytest.approx(1.0), "short responses use the orders they have"
    assert bleu([(1, 2, 3, 4, 5), (6, 7, 8, 9, 10)], [0, 0]) == 0.0


def test_self_bleu_by_hand() -> None:
    # a = 1 2 3 4, b = 1 2 3 9, order 2. a against b: 3 of 4 tokens, 2 of 3 pairs, equal length:
    # sqrt(3/4 * 2/3) = sqrt(1/2). b against a: the same.
    assert bleu([(1, 2, 3, 4), (1, 2, 3, 9)], [0, 0], order=2) == pytest.approx(math.sqrt(0.5))
    # a = 1 2 against b = 1 2 3 4, order 1: precision 1, brevity exp(1 - 4/2) = e^-1. b against a: 2/4, no penalty.
    assert bleu([(1, 2), (1, 2, 3, 4)], [0, 0], order=1) == pytest.approx((math.exp(-1) + 0.5) / 2)


def test_counts_are_clipped_at_the_largest_count_elsewhere() -> None:
    # 1 1 1 against 1 1 and 1 2: min(3, max(2, 1)) / 3 = 2/3, length 3 against 2: no penalty.
    # 1 1 against {1 1 1, 1 2}: min(2, 3)/2 = 1, closest length 2. 1 2 against them: 1 of 2.
    assert bleu([(1, 1, 1), (1, 1), (1, 2)], [0] * 3, order=1) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)


def test_smoothing_replaces_an_empty_match() -> None:
    # No shared pair: 0 without smoothing; with 0.1: tokens 1 of 2, pairs 0.1 of 1 -> sqrt(0.05).
    assert bleu([(1, 2), (1, 3)], [0, 0], order=2) == 0.0
    assert bleu([(1, 2), (1, 3)], [0, 0], order=2, smoothing=0.1) == pytest.approx(math.sqrt(0.05))


def test_lonely_and_empty_responses_are_left_out() -> None:
    assert math.isnan(bleu([(1, 2), (1, 2)], [0, 1]))
    assert math.isnan(bleu([], []))
    assert bleu([(), (1, 2), (1, 2)], [0] * 3) == pytest.approx(1.0)


responses = st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=7), st.integers(0, 2)), max_size=10)


@settings(max_examples=150, deadline=None)
@given(responses, st.sampled_from([0.0, 0.1]), st.integers(1, 4))
def test_self_bleu_equals_brute_force(pairs: list[tuple[list[int], int]], smoothing: float, order: int) -> None:
    completions, groups = [ids for ids, _ in pairs], [group for _, group in pairs]
    expected = brute_force_self_bleu(completions, groups, order, smoothing)
    assert bleu(completions, groups, order=order, smoothing=smoothing) == pytest.approx(
        expected, abs=1e-12, nan_ok=True
    )


@settings(max_examples=50, deadline=None)
@given(responses)
def test_order_of_responses_does_not_matter(pairs: list[tuple[list[int], int]]) -> None:
    def measure(order: list[tuple[list[int], int]]) -> list[float]:
        completions, groups = [ids for ids, _ in order], [group for _, group in order]
        return [bleu(completions, groups), *(distinct(completions, groups, n) for n in (1, 2, 3))]

    assert measure(pairs[::-1]) == pytest.approx(measure(pairs), nan_ok=True)


def test_expectation_adjusted_distinct() -> None:
    # V = 2, C = 2: two uniform draws show 2 (1 - (1/2)^2) = 1.5 different tokens. U = 2 -> 4/3, U = 1 -> 2/3.
    assert expectation_adjusted_distinct([(0, 1)], [0], 2) == pytest.approx(4 / 3)
    assert expectation_adjusted_distinct([(0, 0)], [0], 2) == pytest.approx(2 / 3)
    # Uniform draws score about 1 at any length, where distinct-1 falls towards 0.
    draws = np.random.default_rng(0).integers(0, 50, size=(64, 400)).tolist()
    assert expectation_adjusted_distinct(draws, range(64), 50) == pytest.approx(1.0, abs=0.01)
    assert distinct(draws, range(64), 1) < 0.13
    with pytest.raises(ValueError, match="vocabulary"):
        expectation_adjusted_distinct([(0,)], [0], 0)


def test_answer_entropy() -> None:
    # Shares 1/2, 1/4, 1/4 (None is a class): 1/2 ln 2 + 2 * 1/4 ln 4 = 3/2 ln 2.
    assert answer_entropy(["a", "a", "b", None]) == pytest.approx(1.5 * math.log(2))
    assert answer_entropy(["a", "a"]) == 0.0
    assert answer_entropy([None, None]) == 0.0


def test_metrics_of_rollouts(make_rollout: Callable[..., Rollout]) -> None:
    rollouts = [
        make_rollout(0, ids=(1, 2, 0), answer="24", solution="s", reward=1.0),
        make_rollout(0, ids=(1, 2, 0), answer="24", solution="t", reward=1.0),
        make_rollout(1, ids=(3, 0), answer="5"),
        make_rollout(1, ids=(4, 5), answer=None, finish="length"),
    ]
    metrics = diversity_metrics(rollouts, vocabulary=10)
    # The end token 0 is dropped where it was sampled. Prompt 0: 1 2 | 1 2 -> 2/4; prompt 1: 3 | 4 5 -> 3/3.
    assert metrics["distinct_1"] == pytest.approx(0.75)
    # Prompt 0: two equal responses, so 3 of 4 different. Answers: {24}, {5} -> 1. Solutions: 2 and 0 -> 1.
    assert metrics["distinct_responses"] == 0.75
    assert metrics["distinct_answers"] == 1.0
    assert metrics["distinct_correct"] == 1.0
    # Prompt 0: one class, 0 nats. Prompt 1: "5" and NA, ln 2.
    assert metrics["answer_entropy"] == pytest.approx(math.log(2) / 2)
    assert metrics["self_bleu"] == pytest.approx(0.5)
    assert metrics["ngram"] == pytest.approx((0.75 + 0.75) / 2), "no response has three tokens"
    assert "distinct_3" not in metrics and "ead" in metrics


def test_five_hundred_responses_take_milliseconds() -> None:
    generator = np.random.default_rng(0)
    completions = generator.integers(0, 20, size=(512, 25)).tolist()
    groups = [index // 16 for index in range(512)]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        bleu(completions, groups)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05  # 3 ms on an idle core; pair by pair it takes seconds


def test_groups_must_match() -> None:
    with pytest.raises(ValueError, match="one group per response"):
        distinct([(1,)], [0, 1], 1)
