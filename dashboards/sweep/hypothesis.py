"""Tests the hypothesis of a factor on the final values of a sweep; the result is shown as its verdict.

The rule is fixed before results are seen (:data:`RULE`). An effect is claimed only if both the test is significant and
the interval of the difference that is shown excludes 0, so that verdict and interval never contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from dashboards.statistics.format import interval_text, number, p_text, signed
from dashboards.statistics.intervals import CONFIDENCE, Interval, PairedEffect, paired_effect
from dashboards.statistics.power import MAX_SEEDS, POWER, detectable_effect, seeds_to_detect, seeds_to_equivalence
from dashboards.statistics.trend import Trend, page_trend
from dashboards.sweep.factor import Factor, Hypothesis
from dashboards.sweep.glossary import Metric

SIGNIFICANT = 0.05
MIN_SEEDS = 3
"""Below this many seeds nothing is supported or contradicted: two differences say next to nothing of their spread."""
TOO_FEW = "too few seeds"
RULE = (
    f"Below {MIN_SEEDS} seeds with every level compared the verdict is that there are too few. Supported (or "
    "contradicted): the final value moves in the expected (or the opposite) direction with a two-sided p of at most "
    "0.05, by Page's trend test within seeds for three or more levels and by the paired t test for two, and the 95 % t "
    "interval of the paired difference between the last and the first level lies wholly on the same side of 0. A claim "
    "that nothing moves is contradicted by such a movement, and supported only where it states a margin that holds the "
    "whole interval. Everything else is inconclusive. Of a sweep that crosses its factor with another key the rule is "
    "applied to the means over that key, seed by seed, from seeds with every combination."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEffect:
    """One of the three questions to a sweep of two crossed keys."""

    name: str
    """For example ``Distinct training prompts: 512 minus 8, mean over task.subset``."""
    effect: PairedEffect
    trend: Trend | None = None
    """With three values or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HypothesisResult:
    """The result of testing one hypothesis."""

    outcome: str
    """supported, contradicted, inconclusive, too few seeds or no hypothesis."""
    reason: str
    """The explanation, printed after the outcome."""
    seeds: int = 0
    """Seeds with every level compared."""
    effect: PairedEffect | None = None
    """Last minus first of the hypothesis' levels."""
    trend: Trend | None = None
    """With three levels or more."""
    ends: tuple[str, str] | None = None
    """The first and the last of the hypothesis' levels, where these could be told."""
    cross: tuple[CrossEffect, ...] = ()
    """Of a sweep of two crossed keys: both main effects and the interaction."""
    resolution: str = ""
    """Where nothing was decided: the smallest effect that these seeds could have shown, and how many would decide."""

    @property
    def badge(self) -> str:
        """The outcome; where seeds are too few, how many there are."""
        outcome = self.outcome.capitalize()
        return f"{outcome} ({self.seeds} of {MIN_SEEDS})" if self.outcome == TOO_FEW else outcome

    @property
    def sentence(self) -> str:
        """Badge, reason, and what the seeds could have shown."""
        return f"{self.badge}: {self.reason}.{' ' if self.resolution else ''}{self.resolution}"


def evaluate_hypothesis(
    factor: Factor, finals: pd.DataFrame, labels: Mapping[str, str], metric: Metric
) -> HypothesisResult:
    """Test the factor's hypothesis on ``finals`` [seed, level] of its metric (NaN where a cell is not completed)."""
    hypothesis = factor.hypothesis
    if hypothesis is None:
        return HypothesisResult(outcome="no hypothesis", reason="this study is a description")
    levels, problem = _levels(factor, hypothesis, finals, labels)
    if problem:
        return HypothesisResult(outcome="inconclusive", reason=problem)
    table, ends = finals[levels].dropna(), (levels[0], levels[-1])
    if len(table) < 2:
        reason = _too_few(len(table), hypothesis)
        return HypothesisResult(outcome=TOO_FEW, reason=reason, seeds=len(table), ends=ends)
    if bool(table.eq(table[levels[0]], axis=0).all(axis=None)):
        reason = _identical(factor, metric, len(table))
        return HypothesisResult(outcome="inconclusive", reason=reason, seeds=len(table), ends=ends)
    effect = paired_effect(table[levels[-1]], table[levels[0]], metric.range)
    trend = page_trend(table) if len(levels) > 2 else None
    outcome = TOO_FEW if len(table) < MIN_SEEDS else _outcome(hypothesis, effect, trend)
    movement = _movement(outcome, factor, hypothesis, [labels.get(level, level) for level in levels], table, metric)
    reason = f"{movement}: {_evidence(effect, trend, len(levels), metric)}{_disagreement(outcome, effect, trend)}"
    # Where the pairs alone are clear, the trend or the rule on seeds stands against them, and the reason says so.
    open_question = outcome in (TOO_FEW, "inconclusive") and not _side(effect.difference)
    spread = float((table[levels[-1]] - table[levels[0]]).std())
    return HypothesisResult(
        outcome=outcome,
        reason=reason,
        seeds=len(table),
        effect=effect,
        trend=trend,
        ends=ends,
        resolution=_resolution(hypothesis, effect.difference, spread, metric) if open_question else "",
    )


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
        return [], (
            f"the hypothesis is about the levels {' → '.join(levels)}, of which this study does not have "
            f"{' and '.join(absent)}: its own levels are compared in the tables"
        )
    if len(levels) < 2:
        return [], "there is only one level, so nothing to compare it with"
    if not (factor.ordered or hypothesis.levels or len(levels) == 2):
        return [], "the levels have no order and the hypothesis does not say along which of them the value moves"
    return levels, ""


def _identical(factor: Factor, metric: Metric, seeds: int) -> str:
    """The explanation for final values that are bit-equal at all levels: the factor had no effect at all."""
    return (
        f"final {lowered(metric.label)} is exactly the same at every level in each of {seeds} seeds, so "
        f"{lowered(factor.label)} was inert in this configuration"
    )


def _too_few(seeds: int, hypothesis: Hypothesis) -> str:
    if seeds == 0:
        return f"no seed has completed every level compared with {hypothesis.metric} logged"
    return "only one seed has completed every level compared, and one seed is never evidence"


def significant(effect: PairedEffect, trend: Trend | None) -> bool:
    """Whether the test in use (Page's trend test, or the paired t test) is significant."""
    p_value = trend.p_value if trend else effect.p_value
    return p_value <= SIGNIFICANT  # False for NaN


def moved(effect: PairedEffect, trend: Trend | None) -> int:
    """+1 or -1 where the test is significant and the interval of the difference lies on the same side of 0; else 0."""
    side = _side(effect.difference)
    along = trend is None or (trend.statistic - trend.expected) * side > 0
    return side if significant(effect, trend) and along else 0


def _side(interval: Interval) -> int:
    """The side of 0 that holds the whole interval; 0 where it holds 0 or does not exist."""
    return 1 if interval.low > 0 else -1 if interval.high < 0 else 0


def _outcome(hypothesis: Hypothesis, effect: PairedEffect, trend: Trend | None) -> str:
    """A significant effect supports or contradicts a claimed direction and contradicts "no effect"; that claim is
    supported if the whole interval lies within its margin."""
    observed = moved(effect, trend)
    if hypothesis.direction:
        return "inconclusive" if not observed else "supported" if observed == hypothesis.direction else "contradicted"
    within = max(abs(effect.difference.low), abs(effect.difference.high)) <= hypothesis.margin
    return "supported" if within else "contradicted" if observed else "inconclusive"


def _movement(
    outcome: str, factor: Factor, hypothesis: Hypothesis, labels: list[str], table: pd.DataFrame, metric: Metric
) -> str:
    unit, means = unit_text(metric), table.mean()
    verb = {
        ("supported", 1): "rises",
        ("supported", -1): "falls",
        ("contradicted", 1): "falls instead of rising",
        ("contradicted", -1): "rises instead of falling",
        ("contradicted", 0): "moves",
        ("supported", 0): f"stays within {number(hypothesis.margin)}{unit}",
        (TOO_FEW, hypothesis.direction or 0): "is not judged",
    }.get((outcome, hypothesis.direction or 0), "does not move clearly")
    return (
        f"final {lowered(metric.label)} {verb} along {lowered(factor.label)}, {number(float(means.iloc[-1]))}{unit} at "
        f"{labels[-1]} against {number(float(means.iloc[0]))} at {labels[0]}"
    )


def _evidence(effect: PairedEffect, trend: Trend | None, levels: int, metric: Metric) -> str:
    difference = effect.difference
    text = (
        f"a paired difference of {signed(difference.mean)}{unit_text(metric)} ({CONFIDENCE:.0%} interval "
        f"{interval_text(difference, sign=True)}, {difference.count} seeds"
    )
    if trend is None:
        return f"{text}; paired t test {p_text(effect.p_value)})"
    text += f"; trend over {levels} levels {p_text(trend.p_value)}"
    if trend.smallest_p > SIGNIFICANT:
        text += f", and no result of {trend.seeds} seeds could fall below {number(trend.smallest_p)}"
    return f"{text})"


def _disagreement(outcome: str, effect: PairedEffect, trend: Trend | None) -> str:
    """Why an inconclusive verdict stands beside a significant trend, or beside an interval that leaves 0 out."""
    side = _side(effect.difference)
    if trend is None or outcome != "inconclusive" or moved(effect, trend):
        return ""
    if significant(effect, trend):
        return (
            "; the levels follow an order, but the difference between the first and the last may still be 0"
            if not side
            else "; the levels follow the opposite order"
        )
    return "; the first and the last level differ, but the levels between them do not follow" if side else ""


def _resolution(hypothesis: Hypothesis, difference: Interval, spread: float, metric: Metric) -> str:
    """The smallest effect that these seeds could have shown, and how many seeds would decide, in words."""
    if not spread > 0:
        return ""
    unit, mean, count = unit_text(metric), difference.mean, difference.count
    sentence = (
        f"With this spread, the smallest difference between the first and the last level that {count} seeds could have "
        f"shown is {number(detectable_effect(spread, count))}{unit} ({POWER:.0%} power, two-sided 5%, paired t test)"
    )
    if not hypothesis.direction and abs(mean) < hypothesis.margin:
        seeds = seeds_to_equivalence(mean, spread, hypothesis.margin)
        goal = f"to place it within the margin of {number(hypothesis.margin)}{unit}"
    else:
        seeds = seeds_to_detect(mean, spread)
        goal = f"to show the observed {signed(mean)}{unit}"
    if seeds is None:
        return f"{sentence}; {goal}, {MAX_SEEDS:,} seeds would not be enough."
    return f"{sentence}; {goal}, it takes {max(seeds, MIN_SEEDS)} seeds."


def unit_text(metric: Metric) -> str:
    """The unit of a difference, with a space before it; nothing for fractions and the like."""
    return f" {metric.unit}" if metric.unit in ("nats", "tokens") else ""


def lowered(label: str) -> str:
    """A label within a sentence."""
    return label if label[:2].isupper() else label[:1].lower() + label[1:]
