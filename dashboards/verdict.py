"""Does the study support its factor's hypothesis? One word, one sentence, the number and its interval.

Pure; called by the pages with the table of final values. The rule is fixed before results are seen: a direction is
claimed only at a two-sided p <= 0.05 and when the end-to-end paired difference points the same way, never from one
seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from dashboards.factor import Factor, Hypothesis
from dashboards.format import interval_text, number, p_text, signed
from dashboards.names import describe
from dashboards.stats import CONFIDENCE, Interval, PairedEffect, paired_effect
from dashboards.trend import Trend, page_trend

SIGNIFICANT = 0.05
RULE = (
    "Supported (or contradicted): the final value moves in the expected (or the opposite) direction with a two-sided "
    "p of at most 0.05, by Page's trend test within seeds for three or more levels and by the paired t test for two, "
    "and the paired difference between the last and the first level has the same sign. A claim that nothing moves is "
    "contradicted by such a movement, and supported only where it states a margin that holds the whole interval. "
    "Everything else is inconclusive, and so is any study of a single seed."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement of one hypothesis."""

    outcome: str
    """supported, contradicted, inconclusive or "no hypothesis"."""
    sentence: str
    effect: PairedEffect | None = None
    """Last minus first of the hypothesis' levels."""
    trend: Trend | None = None
    """With three levels or more."""


def judge(factor: Factor, finals: pd.DataFrame, labels: Mapping[str, str]) -> Verdict:
    """Judge the factor's hypothesis on ``finals`` [seed, level] of the hypothesis' metric (NaN where not completed)."""
    hypothesis = factor.hypothesis
    if hypothesis is None:
        return Verdict(outcome="no hypothesis", sentence="This study states no hypothesis: read it as a description.")
    levels, problem = _levels(factor, hypothesis, finals, labels)
    if problem:
        return Verdict(outcome="inconclusive", sentence=f"Inconclusive: {problem}.")
    table = finals[levels].dropna()
    if len(table) < 2:
        return Verdict(outcome="inconclusive", sentence=f"Inconclusive: {_too_few(len(table), hypothesis)}.")
    if bool(table.eq(table[levels[0]], axis=0).all(axis=None)):
        return Verdict(outcome="inconclusive", sentence=_identical(factor, hypothesis, len(table)))
    effect = paired_effect(table[levels[-1]], table[levels[0]])
    trend = page_trend(table) if len(levels) > 2 else None
    p_value = trend.p_value if trend else effect.p_value
    observed = trend.statistic - trend.expected if trend else effect.difference.mean
    clear = not math.isnan(p_value) and p_value <= SIGNIFICANT and observed * effect.difference.mean > 0
    outcome = _outcome(hypothesis, clear, observed, effect.difference)
    sentence = _sentence(outcome, factor, hypothesis, [labels.get(level, level) for level in levels], table, effect)
    evidence = _evidence(p_value, len(levels), trend)
    return Verdict(outcome=outcome, sentence=sentence + evidence, effect=effect, trend=trend)


def _levels(
    factor: Factor, hypothesis: Hypothesis, finals: pd.DataFrame, labels: Mapping[str, str]
) -> tuple[list[str], str]:
    """The levels the claim runs along, or why there are none."""
    if hypothesis.direction is None:
        return [], "the hypothesis states no direction (increase, decrease or none)"
    if factor.crossed:
        return [], f"this sweep also varies {', '.join(factor.crossed)}, so its levels have no single order"
    if finals.empty or finals.isna().all(axis=None):
        return [], f"no completed cell logged {hypothesis.metric}"
    names = {label: level for level, label in labels.items()}
    levels = [level if level in finals.columns else names.get(level, level) for level in hypothesis.levels]
    levels = levels or [str(level) for level in finals.columns]
    if absent := [level for level in levels if level not in finals.columns]:
        return [], f"the hypothesis names level {absent[0]!r}, which this study does not have"
    if len(levels) < 2:
        return [], "there is only one level, so nothing to compare it with"
    if not (factor.ordered or hypothesis.levels or len(levels) == 2):
        return [], "the levels have no order and the hypothesis does not say along which of them the value moves"
    return levels, ""


def _identical(factor: Factor, hypothesis: Hypothesis, seeds: int) -> str:
    """Bit-equal levels are no statistical question: the factor did not reach the computation."""
    name = _lower(describe(hypothesis.metric).label)
    return (
        f"Inconclusive: final {name} is exactly the same at every level in each of {seeds} seeds, so "
        f"{_lower(factor.label)} was inert in this configuration."
    )


def _too_few(seeds: int, hypothesis: Hypothesis) -> str:
    if seeds == 0:
        return f"no seed has completed every level compared with {hypothesis.metric} logged"
    return "only one seed has completed every level compared, and one seed is never evidence"


def _outcome(hypothesis: Hypothesis, clear: bool, observed: float, difference: Interval) -> str:
    """A clear movement decides a claimed direction and contradicts a claimed absence, which needs a margin to be
    supported: the interval must lie within it."""
    if hypothesis.direction:
        return "inconclusive" if not clear else "supported" if observed * hypothesis.direction > 0 else "contradicted"
    within = max(abs(difference.low), abs(difference.high)) <= hypothesis.margin
    return "contradicted" if clear and not within else "supported" if within else "inconclusive"


def _sentence(
    outcome: str, factor: Factor, hypothesis: Hypothesis, labels: list[str], table: pd.DataFrame, effect: PairedEffect
) -> str:
    name = describe(hypothesis.metric)
    unit = f" {name.unit}" if name.unit in ("nats per token", "nats", "tokens") else ""
    verb = {
        ("supported", 1): "rises",
        ("supported", -1): "falls",
        ("contradicted", 1): "falls instead of rising",
        ("contradicted", -1): "rises instead of falling",
        ("contradicted", 0): "moves",
        ("supported", 0): f"stays within {number(hypothesis.margin)}{unit}",
    }.get((outcome, hypothesis.direction or 0), "does not move clearly")
    means = table.mean()
    return (
        f"{outcome.capitalize()}: final {_lower(name.label)} {verb} along {_lower(factor.label)}, "
        f"{number(float(means.iloc[-1]))}{unit} at {labels[-1]} against {number(float(means.iloc[0]))} at {labels[0]}: "
        f"a paired difference of {signed(effect.difference.mean)}{unit} "
        f"({CONFIDENCE:.0%} interval {interval_text(effect.difference, sign=True)}, {effect.difference.count} seeds"
    )


def _evidence(p_value: float, levels: int, trend: Trend | None) -> str:
    if trend is None:
        return f"; paired t test {p_text(p_value)})."
    text = f"; trend over {levels} levels {p_text(p_value)}"
    if trend.smallest_p > SIGNIFICANT:
        text += f", and no result of {trend.seeds} seeds could fall below {number(trend.smallest_p)}"
    return text + ")."


def _lower(label: str) -> str:
    return label if label[:2].isupper() else label[:1].lower() + label[1:]
