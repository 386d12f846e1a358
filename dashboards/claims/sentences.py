"""The numbers of a test of a claim, as a sentence."""

from __future__ import annotations

import math

from dashboards.claims.judge import NO_RUNS, Comparison, TestResult
from dashboards.statistics.format import interval_text, number, p_text, signed


def test_line(result: TestResult) -> str:
    """What is compared, and of what has runs the numbers and the outcome."""
    if result.outcome == NO_RUNS:
        return f"{result.test.words}."
    return f"{result.test.words}: {result_text(result)} → {result.outcome}."


def result_text(result: TestResult) -> str:
    """The numbers of a test: mean over seeds with its interval, and what the seeds could have shown."""
    if result.test.region is None:
        return f"Friedman's test over {len(result.table)} seeds: {p_text(result.p_value)}"
    return "; ".join(map(comparison_text, result.comparisons)) or "no seed has all arms"


def comparison_text(item: Comparison) -> str:
    """``+0.13 (+0.05 to +0.21), p = 0.01``."""
    if not item.numbers:
        return "no seed has all arms"
    text = f"{signed(item.interval.mean)} ({interval_text(item.interval, sign=True)}), {p_text(item.p_value)}"
    if not math.isnan(item.resolution):
        text += f"; these seeds show a distance of {number(item.resolution)} from the bound with 80 % power"
    return text
