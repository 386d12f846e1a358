"""Summary statistics of a sweep: final values, table of levels, effects, reward-entropy laws, hypothesis test.

The final value of a metric is its mean over the last 5 logged steps of a completed cell; of an ``eval/`` metric it is
the last value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from dashboards.statistics.intervals import (
    UNBOUNDED,
    Bounds,
    Floats,
    Interval,
    PairedEffect,
    bounded_interval,
    holm,
    normal_interval,
    paired_effect,
)
from dashboards.statistics.law import EARLY_STEPS, early_steps, fit_law, prediction_error
from dashboards.statistics.trend import friedman_p, page_trend
from dashboards.sweep.cross import evaluate_cross
from dashboards.sweep.hypothesis import MIN_SEEDS, SIGNIFICANT, HypothesisResult, evaluate_hypothesis
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import ENTROPY, SAMPLED_REWARD, compared_keys, headline_keys

FINAL_STEPS = 5
"""Last logged steps of a run whose mean is the final value of a training metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRow:
    """One level of the level table."""

    level: str
    label: str
    completed: int
    planned: int
    values: dict[str, Interval]
    """Mean over completed seeds with its t interval, by metric."""
    problems: dict[str, Interval]
    """The same mean with an interval over the problems of the suite, for evaluations that logged its error."""
    reconstructed: bool
    """Whether a component of its method is reconstructed from an incomplete source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricTest:
    """The test of one metric over the levels, in addition to the hypothesis."""

    metric: str
    first: str
    """Label: the first level (ordered factors) or the level with the lowest mean."""
    last: str
    """Label: the last level, or the level with the highest mean."""
    first_mean: float
    last_mean: float
    effect: PairedEffect | None
    """Last minus first level; None for unordered levels, where choosing the extremes would bias it."""
    p_value: float
    """Page's trend (ordered), Friedman (unordered) or the paired t test (two levels)."""
    adjusted_p: float
    """Holm over the metrics tested, the hypothesis' own metric excepted."""
    primary: bool
    """This is the hypothesis' metric."""

    @property
    def clear(self) -> bool:
        """Whether the corrected p is at most 0.05, the seeds are enough, and the interval, if any, excludes 0."""
        if self.effect is None:
            return self.adjusted_p <= SIGNIFICANT
        interval = self.effect.difference
        apart = interval.low > 0 or interval.high < 0
        return self.adjusted_p <= SIGNIFICANT and interval.count >= MIN_SEEDS and apart


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelLaw:
    """The reward-entropy law of one level: means of the fits to its runs, with t intervals over seeds.

    Of a single run the intervals are those of its fit, and the prediction errors have none.
    """

    level: str
    label: str
    a: Interval
    b: Interval
    ceiling: Interval
    r_squared: Interval
    error_early: Interval
    """RMSE over the rest of a run, predicted from its first 15 %."""
    error_36: Interval
    """The same from its first 36 steps."""

    def reward(self, entropy: Floats) -> Floats:
        """Reward at ``entropy`` (nats), any shape."""
        return -self.a.mean * np.exp(entropy) + self.b.mean


def final_steps(metric: str) -> int:
    """Logged steps whose mean is the final value: what evaluations measure has its last value alone."""
    return 1 if metric.startswith(("eval/", "support/")) else FINAL_STEPS


def cell_finals(sweep: SweepData, metric: str) -> pd.DataFrame:
    """The final value of ``metric`` in every completed cell: columns level, label, level_index, seed, value."""
    columns = ["level", "label", "level_index", "seed"]
    points = sweep.metrics[(sweep.metrics["metric"] == metric) & sweep.metrics["value"].notna()]
    points = points[points["signature"].isin(sweep.completed["signature"])]
    tail = points.sort_values("step").groupby("signature").tail(final_steps(metric))
    return tail.groupby(columns)["value"].mean().reset_index().sort_values(["level_index", "seed"])


def final_table(sweep: SweepData, metric: str) -> pd.DataFrame:
    """[seed, level] final values in level order; NaN for cells that are not completed or did not log ``metric``."""
    finals = cell_finals(sweep, metric)
    table = finals.pivot_table(index="seed", columns="level", values="value", aggfunc="mean")
    table.columns.name = None
    return table.reindex(columns=list(sweep.levels["level"]), index=sorted(sweep.cells["seed"].unique()))


def labels(sweep: SweepData) -> dict[str, str]:
    """Level to label, in level order."""
    return dict(zip(sweep.levels["level"], sweep.levels["label"], strict=True))


def metric_keys(sweep: SweepData) -> list[str]:
    """Every metric that any cell logged."""
    return [str(key) for key in sweep.metrics["metric"].unique()]


def level_rows(sweep: SweepData, metrics: Sequence[str] | None = None) -> list[LevelRow]:
    """One row a level, in order, with the headline metrics unless others are named."""
    chosen = headline_keys(metric_keys(sweep)) if metrics is None else list(metrics)
    tables = {metric: final_table(sweep, metric) for metric in chosen}
    reconstructed = {
        level
        for signature, level in zip(sweep.cells["signature"], sweep.cells["level"], strict=True)
        if (run := sweep.runs.get(signature)) and run.tags.get("method.status") == "reconstructed"
    }
    return [
        LevelRow(
            level=level,
            label=label,
            completed=int((sweep.completed["level"] == level).sum()),
            planned=int((sweep.cells["level"] == level).sum()),
            values={
                metric: bounded_interval(table[level], sweep.describe(metric).range) for metric, table in tables.items()
            },
            problems={
                metric: interval
                for metric, table in tables.items()
                if (interval := over_problems(sweep, metric, level, table)) is not None
            },
            reconstructed=level in reconstructed,
        )
        for level, label in labels(sweep).items()
    ]


def over_problems(sweep: SweepData, metric: str, level: str, table: pd.DataFrame) -> Interval | None:
    """The level's mean with an interval over the sampling of problems; None if no run logged that standard error.

    All seeds answer the same problems, so more seeds do not make it narrower: its standard error is the root mean
    square of those of the runs.
    """
    errors = final_table(sweep, f"{metric}_se")[level].dropna()
    if errors.empty:
        return None
    error = float(np.sqrt((errors**2).mean()))
    mean = float(table[level].mean())
    return normal_interval(mean, error, sweep.describe(metric).range, count=int(errors.size))


def paired_effects(sweep: SweepData, metric: str = ENTROPY) -> list[tuple[str, PairedEffect]]:
    """(label, level minus reference) for every level but the reference, in order."""
    table, reference, bounds = final_table(sweep, metric), sweep.reference, sweep.describe(metric).range
    return [
        (label, paired_effect(table[level], table[reference], bounds))
        for level, label in labels(sweep).items()
        if level != reference
    ]


def metric_tests(sweep: SweepData) -> list[MetricTest]:
    """Tests of the other metrics over the same levels, Holm-corrected together; the hypothesis' metric comes first."""
    logged = metric_keys(sweep)
    primary = sweep.factor.hypothesis.metric if sweep.factor.hypothesis else ""
    ordered = [key for key in [primary] if key in logged] + [key for key in compared_keys(logged) if key != primary]
    tests = [test for key in ordered if (test := _test(sweep, key, key == primary)) is not None]
    adjusted = holm([math.nan if test.primary else test.p_value for test in tests])
    return [replace(test, adjusted_p=p_value) for test, p_value in zip(tests, adjusted, strict=True)]


def _test(sweep: SweepData, metric: str, primary: bool) -> MetricTest | None:
    table, names = final_table(sweep, metric), labels(sweep)
    means = table.mean().dropna()
    if len(means) < 2:
        return None
    end_levels = (means.index[0], means.index[-1])
    effect: PairedEffect | None = paired_effect(
        table[end_levels[1]], table[end_levels[0]], sweep.describe(metric).range
    )
    if len(means) == 2:
        p_value = effect.p_value if effect else math.nan
    elif sweep.factor.ordered:
        trend = page_trend(table[means.index])
        p_value = trend.p_value if trend.seeds > 1 else math.nan
    else:
        end_levels, effect, p_value = (means.idxmin(), means.idxmax()), None, friedman_p(table[means.index])
    return MetricTest(
        metric=metric,
        first=names[end_levels[0]],
        last=names[end_levels[1]],
        first_mean=float(means[end_levels[0]]),
        last_mean=float(means[end_levels[1]]),
        effect=effect,
        p_value=p_value,
        adjusted_p=math.nan,
        primary=primary,
    )


def hypothesis_result(sweep: SweepData) -> HypothesisResult:
    """The result of testing the sweep's hypothesis."""
    metric = sweep.factor.hypothesis.metric if sweep.factor.hypothesis else ENTROPY
    evaluate = evaluate_hypothesis if sweep.factor.grid is None else evaluate_cross
    return evaluate(sweep.factor, final_table(sweep, metric), labels(sweep), sweep.describe(metric))


def entropy_reward(sweep: SweepData) -> pd.DataFrame:
    """Steps at which a cell logged both: columns signature, level, label, level_index, seed, step, entropy, reward."""
    logged = sweep.metrics[sweep.metrics["metric"].isin([ENTROPY, SAMPLED_REWARD])]
    index = ["signature", "level", "label", "level_index", "seed", "step"]
    wide = logged.pivot_table(index=index, columns="metric", values="value").reindex(columns=[ENTROPY, SAMPLED_REWARD])
    return wide.dropna().rename(columns={ENTROPY: "entropy", SAMPLED_REWARD: "reward"}).reset_index()


def level_laws(sweep: SweepData) -> list[LevelLaw]:
    """The law of every level whose completed cells allow a fit."""
    points = entropy_reward(sweep)
    points = points[points["signature"].isin(sweep.completed["signature"])].sort_values("step")
    fits = []
    for level, label in labels(sweep).items():
        of_level = points[points["level"] == level]
        runs = [(run["entropy"].to_numpy(), run["reward"].to_numpy()) for _, run in of_level.groupby("signature")]
        fitted = [(law, *run) for run in runs if (law := fit_law(*run)) is not None]
        if not fitted:
            continue

        def over_seeds(intervals: list[Interval], bounds: Bounds = UNBOUNDED) -> Interval:
            return intervals[0] if len(intervals) == 1 else bounded_interval([i.mean for i in intervals], bounds)

        early = [prediction_error(entropy, reward, early_steps(len(entropy))) for _, entropy, reward in fitted]
        paper = [prediction_error(entropy, reward, EARLY_STEPS) for _, entropy, reward in fitted]
        fits.append(
            LevelLaw(
                level=level,
                label=label,
                a=over_seeds([law.a for law, _, _ in fitted]),
                b=over_seeds([law.b for law, _, _ in fitted]),
                ceiling=over_seeds([law.ceiling for law, _, _ in fitted]),
                r_squared=over_seeds([law.r_squared for law, _, _ in fitted], Bounds(low=0.0, high=1.0)),
                error_early=bounded_interval(early, Bounds(low=0.0)),
                error_36=bounded_interval(paper, Bounds(low=0.0)),
            )
        )
    return fits
