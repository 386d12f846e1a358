"""The verdict on a claim, from one number per seed. The rule is fixed before results are seen (:data:`RULE`).

Seeds are the unit: arms are compared within a seed, and every interval and p-value is that of a mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t as student

from dashboards.claims.claim import Claim, Region, Test
from dashboards.claims.values import evaluate
from dashboards.statistics.intervals import Interval, holm, t_interval
from dashboards.statistics.power import detectable_effect
from dashboards.statistics.trend import friedman_p, page_trend

MIN_SEEDS = 3
"""Below this many seeds nothing is decided."""
REPRODUCED, CONTRADICTED, UNDECIDED, NO_RUNS = "reproduced", "contradicted", "not decided", "not run"
RULE = (
    f"A test compares arms within each seed and asks where the mean over seeds lies, by its 95 % t interval; below "
    f"{MIN_SEEDS} seeds it decides nothing. It is reproduced if the whole interval lies where the claim says (along "
    "three or more arms Page's trend test must agree, p at most 0.05), and contradicted if the whole interval, made "
    "wider for the number of the claim's tests (Bonferroni), lies elsewhere. A claim is reproduced if all of its tests "
    "are, contradicted if one is, and else not decided. p is that of its weakest test; Holm's adjusted p takes the "
    "number of claims in the table into account."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One number a seed, and where its mean should lie."""

    numbers: tuple[float, ...]
    region: Region
    interval: Interval
    """Mean over seeds with its 1 - alpha t interval."""
    p_value: float
    """Two-sided p that the mean lies on the nearer end of the region (TOST for a region with two ends)."""
    outcome: str
    resolution: float = math.nan
    """Where undecided: the distance from the end of the region that these seeds show with 80 % power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """A test with its result."""

    test: Test
    table: pd.DataFrame
    """[seed, arm]: the numbers of the runs."""
    comparisons: tuple[Comparison, ...]
    outcome: str
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """A claim with the results of its tests."""

    claim: Claim
    results: tuple[TestResult, ...]
    outcome: str
    p_value: float
    holm_p: float = math.nan
    seeds: int = 0
    """Seeds of the test that has the fewest."""
    why: str = ""
    """Of a contradicted claim: what the ledger says carried the difference."""


RunTable = Mapping[tuple[str, int], pd.DataFrame]
"""(level, seed) -> frame [step, metric] of a completed run."""


def judge(claims: Sequence[Claim], runs: RunTable) -> list[ClaimVerdict]:
    """The verdict on every claim, with Holm's p over those that have one."""
    verdicts = [judge_claim(claim, runs) for claim in claims]
    adjusted = holm([verdict.p_value for verdict in verdicts])
    return [replace(verdict, holm_p=p) for verdict, p in zip(verdicts, adjusted, strict=True)]


def judge_claim(claim: Claim, runs: RunTable) -> ClaimVerdict:
    """Reproduced if all tests are, contradicted if one is at the claim's level over the number of its tests."""
    # A contradiction is looked for in every test of the claim, so it takes its share of alpha.
    share = claim.alpha / len(claim.tests)
    results = tuple(judge_numbers(test, numbers(claim, test, runs), claim.alpha, share) for test in claim.tests)
    outcomes = {result.outcome for result in results}
    word = next((word for word in (CONTRADICTED, NO_RUNS, UNDECIDED) if word in outcomes), REPRODUCED)
    # The claim's tests must all hold, so its p is the largest (intersection-union).
    return ClaimVerdict(
        claim=claim,
        results=results,
        outcome=word,
        p_value=max((result.p_value for result in results), default=math.nan),
        seeds=min(len(result.table) for result in results),
    )


def judge_numbers(test: Test, table: pd.DataFrame, alpha: float, strict: float) -> TestResult:
    """The result of a test on ``table`` [seed, arm]: reproduced at ``alpha``, contradicted at ``strict``."""
    if test.region is None:
        p = friedman_p(table) if len(table) >= MIN_SEEDS else math.nan
        outcome = NO_RUNS if table.empty else REPRODUCED if p <= alpha else UNDECIDED
        return TestResult(test=test, table=table, comparisons=(), outcome=outcome, p_value=p)
    comparisons = tuple(_compare(units, test.region, alpha, strict) for units in contrasts(test.compare, table))
    if table.empty:
        return TestResult(test=test, table=table, comparisons=comparisons, outcome=NO_RUNS, p_value=math.nan)
    p = max(item.p_value for item in comparisons)
    outcomes = {item.outcome for item in comparisons}
    outcome = next((word for word in (CONTRADICTED, UNDECIDED) if word in outcomes), REPRODUCED)
    if test.compare == "trend":
        trend = page_trend(table)
        along = trend.p_value <= (strict if outcome == CONTRADICTED else alpha)
        same = (trend.statistic > trend.expected) == (comparisons[0].interval.mean > 0)
        outcome, p = (outcome if along and same else UNDECIDED), max(p, trend.p_value)
    return TestResult(test=test, table=table, comparisons=comparisons, outcome=outcome, p_value=p)


def numbers(claim: Claim, test: Test, runs: RunTable) -> pd.DataFrame:
    """[seed, arm] numbers of the seeds for which all arms of the test have one."""
    seeds = {seed for level, seed in runs if level == claim.arms[test.arms[0]]}
    if claim.seeds is not None:
        seeds &= claim.seeds
    rows = {}
    for seed in sorted(seeds):
        keys = {arm: (claim.arms[arm], seed) for arm in test.arms}
        if all(key in runs for key in keys.values()):
            rows[seed] = evaluate(test.value, {arm: runs[key] for arm, key in keys.items()})
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(test.arms), dtype=np.float64)
    return table.replace([np.inf, -np.inf], np.nan).dropna().sort_index()


def contrasts(compare: str, table: pd.DataFrame) -> list[np.ndarray]:
    """[seeds] numbers to be judged, one array a comparison: see :class:`~dashboards.claims.claim.Test`."""
    values = table.to_numpy()
    if compare == "value":
        return [values[:, 0]]
    if compare == "peak":
        middle = values[:, 1:-1].mean(axis=1)
        return [middle - values[:, 0], middle - values[:, -1]]
    if compare == "interaction":
        return [(values[:, 3] - values[:, 2]) - (values[:, 1] - values[:, 0])]
    return [values[:, -1] - values[:, 0]]


def _compare(units: np.ndarray, region: Region, alpha: float, strict: float) -> Comparison:
    count = len(units)
    interval, wider = t_interval(units, 1 - alpha), t_interval(units, 1 - strict)
    p = _p_value(units, region)
    spread = float(np.std(units, ddof=1)) if count > 1 else math.nan
    if count < MIN_SEEDS:
        outcome = UNDECIDED
    elif region.low < interval.low and interval.high < region.high:
        outcome = REPRODUCED
    elif wider.high < region.low or wider.low > region.high:
        outcome = CONTRADICTED
    else:
        outcome = UNDECIDED
    return Comparison(
        numbers=tuple(units.tolist()),
        region=region,
        interval=interval,
        p_value=p,
        outcome=outcome,
        resolution=detectable_effect(spread, count) if outcome == UNDECIDED and count > 1 and spread > 0 else math.nan,
    )


def _p_value(units: np.ndarray, region: Region) -> float:
    """Two-sided p that the mean is an end of the region, the larger where it has two ends; NaN below two seeds."""
    if len(units) < 2:
        return math.nan
    error = float(np.std(units, ddof=1)) / math.sqrt(len(units))
    found = []
    for bound in (region.low, region.high):
        if math.isfinite(bound):
            distance = abs(float(np.mean(units)) - bound)
            found.append(float(2 * student.sf(distance / error, len(units) - 1)) if error > 0 else float(distance == 0))
    return max(found)
