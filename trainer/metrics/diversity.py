"""How different the responses to one prompt are: in their tokens, their answers, their correct solutions.

Exact, no sampling: sorting makes self-BLEU O(tokens log tokens) instead of O(group^2). It must not decode text or
judge answers. Definitions: specification 15.3 and 11.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainer.metrics.ngrams import GramTable, Ints, Responses, flatten_responses, gram_tables

if TYPE_CHECKING:
    from trainer.batch.types import Rollout

Floats = NDArray[np.float64]

ORDER = 4
"""Longest n-gram of self-BLEU and of n-gram diversity."""


def distinct_per_group(table: GramTable, responses: Responses) -> Floats:
    """distinct-n of each group [P]: number of different n-grams / number of n-grams, over the responses of a group.

    1.0 where no n-gram occurs twice, nan where a group has none. Falls with length: compare at equal token budgets.
    """
    groups = responses.num_groups
    total = np.bincount(responses.group[table.row], weights=table.count, minlength=groups)
    unique = np.bincount(responses.group[table.row[table.start]], minlength=groups)
    distinct: Floats = np.divide(unique, total, out=np.full(groups, np.nan), where=total > 0)
    return distinct


def expectation_adjusted_distinct(
    completions: Sequence[Sequence[int]], groups: Sequence[int], vocabulary: int
) -> float:
    """EAD = U / (V * (1 - ((V - 1) / V)^C)) per prompt, then the mean over prompts.

    U different tokens among the C tokens of a prompt's responses, V the vocabulary size. The denominator is the number
    of different tokens that C uniform draws would give, so unlike distinct-1 it does not fall with length.
    """
    if vocabulary < 1:
        raise ValueError(f"expectation-adjusted distinct got a vocabulary of {vocabulary}; give the tokenizer's size")
    responses = flatten_responses(completions, groups)
    table = gram_tables(responses, 1)[0]
    total = np.bincount(responses.group, weights=responses.lengths, minlength=responses.num_groups)
    unique = np.bincount(responses.group[table.row[table.start]], minlength=responses.num_groups)
    # V (1 - ((V-1)/V)^C) = -V expm1(C log1p(-1/V)): no cancellation when C is much smaller than V.
    shrink = np.log1p(-1.0 / vocabulary) if vocabulary > 1 else -np.inf
    expected = -vocabulary * np.expm1(total * shrink, out=np.zeros_like(total), where=total > 0)
    return _mean(np.divide(unique, expected, out=np.full(len(total), np.nan), where=total > 0))


def self_bleu(tables: Sequence[GramTable], responses: Responses, smoothing: float = 0.0) -> float:
    """Mean over responses of BLEU against the other responses of its prompt; 1 all equal, 0 nothing shared.

    BLEU_i = BP_i * exp(mean_n log p_n), p_n = sum_g min(c_i(g), max_{j != i} c_j(g)) / sum_g c_i(g), n = 1..order.
    BP_i = exp(min(0, 1 - r / l)), l the length of response i, r the closest length among the others (ties: the
    shorter). ``tables[n - 1]`` holds the n-grams; there are as many tables as orders. Orders longer than a response are
    left out, so equal short responses still score 1. ``smoothing`` replaces a match count of 0 (default: no smoothing,
    one empty order makes the BLEU 0). Empty responses and prompts with one response are left out; nan if nothing
    remains. Exact.
    """
    rows = responses.num_rows
    log_sum, orders = np.zeros(rows), np.zeros(rows)
    for table in tables:
        matched = np.bincount(table.row, weights=np.minimum(table.count, _largest_elsewhere(table)), minlength=rows)
        total = np.bincount(table.row, weights=table.count, minlength=rows)
        matched = np.where(matched == 0, smoothing, matched)
        precision = np.divide(matched, total, out=np.ones(rows), where=total > 0)
        with np.errstate(divide="ignore"):
            log_sum += np.log(precision)
        orders += total > 0
    sizes = np.bincount(responses.group)[responses.group] if rows else np.zeros(0)
    scored = (responses.lengths > 0) & (sizes > 1)
    if not scored.any():
        return math.nan
    bleu = _brevity(responses)[scored] * np.exp(log_sum[scored] / orders[scored])
    return float(bleu.mean())


def _largest_elsewhere(table: GramTable) -> Ints:
    """[K] for each (gram, response): the largest count of that gram in any other response of the group, 0 if none.

    It is the group's largest count, unless this response alone holds it; then it is the second largest.
    """
    if not len(table.row):
        return table.count
    largest = table.per_entry(np.maximum.reduceat(table.count, table.start))
    at_largest = table.count == largest
    holders = table.per_entry(np.add.reduceat(at_largest.astype(np.int64), table.start))
    second = table.per_entry(np.maximum.reduceat(np.where(at_largest, 0, table.count), table.start))
    elsewhere: Ints = np.where(at_largest & (holders == 1), second, largest)
    return elsewhere


def _brevity(responses: Responses) -> Floats:
    """[N] brevity penalty; in sorted order the closest other length is a neighbour, so no pairs are formed."""
    order = np.lexsort((responses.lengths, responses.group))
    length, group = responses.lengths[order].astype(np.float64), responses.group[order]
    same = group[1:] == group[:-1]
    shorter = np.concatenate([[np.inf], np.where(same, np.diff(length), np.inf)])
    longer = np.concatenate([np.where(same, np.diff(length), np.inf), [np.inf]])
    closest = np.where(shorter <= longer, length - shorter, length + longer)
    gap = np.divide(closest, length, out=np.ones_like(length), where=(length > 0) & np.isfinite(closest))
    penalty: Floats = np.empty_like(length)
    penalty[order] = np.exp(np.minimum(0.0, 1.0 - gap))
    return penalty


def answer_entropy(answers: Sequence[str | None]) -> float:
    """H = -sum_a p_a ln p_a over the final answers of one prompt, nats; None (no answer could be read) is one class."""
    if not answers:
        return math.nan
    counts = np.array(list(Counter(answers).values()), dtype=np.float64)
    probabilities = counts / counts.sum()
    entropy = -(probabilities * np.log(probabilities)).sum()
    return float(entropy) + 0.0  # turns the -0.0 of a single class into 0.0


def answer_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Means over prompts: distinct answers (None is not an answer), distinct correct solutions, answer entropy
    (nats).
    """
    answers: dict[int, list[str | None]] = {}
    solutions: dict[int, set[str]] = {}
    for rollout in rollouts:
        verdict = rollout.verdict
        if verdict is None:
            raise ValueError(f"rollout of prompt {rollout.prompt.id} has not been verified; verify it first")
        answers.setdefault(rollout.group, []).append(verdict.answer)
        of_prompt = solutions.setdefault(rollout.group, set())
        if verdict.solution is not None:
            of_prompt.add(verdict.solution)
    distinct = [float(len(set(group) - {None})) for group in answers.values()]
    return {
        "distinct_answers": _mean(np.array(distinct)),
        "distinct_correct": _mean(np.array([float(len(of_prompt)) for of_prompt in solutions.values()])),
        "answer_entropy": _mean(np.array([answer_entropy(group) for group in answers.values()])),
    }


def diversity_metrics(rollouts: Sequence[Rollout], *, vocabulary: int | None = None) -> dict[str, float]:
    """Every diversity metric of verified rollouts, by bare name; the caller puts ``diversity/`` in front.

    Tokens are the completion without its end token. ``ead`` needs the vocabulary size. A metric that is undefined
    (no response has n tokens, every prompt has one response) is left out rather than reported as a number.
    """
    completions = [r.completion_ids[:-1] if r.finish_reason == "stop" else r.completion_ids for r in rollouts]
    groups = [rollout.group for rollout in rollouts]
    responses = flatten_responses(completions, groups)
    tables = gram_tables(responses, ORDER)
    distinct = [_mean(distinct_per_group(table, responses)) for table in tables]
    metrics = {f"distinct_{n}": value for n, value in enumerate(distinct, start=1)}
    metrics["ngram"] = _mean(np.array(distinct))
    metrics["self_bleu"] = self_bleu(tables, responses)
    unique = len(set(zip(groups, completions, strict=True)))
    metrics["distinct_responses"] = unique / len(rollouts) if rollouts else math.nan
    if vocabulary is not None:
        metrics["ead"] = expectation_adjusted_distinct(completions, groups, vocabulary)
    metrics |= answer_metrics(rollouts)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _mean(values: Floats) -> float:
    """Mean of the defined values; nan if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
