"""A study joined with the statistics: final values, level rows, effects, laws, verdict.

Called by the report, the claims page and the terminal table. Must not draw or format.
"Final" is the mean of the last 5 logged steps of a completed cell; of an ``eval/`` metric, its last value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from dashboards.law import FINAL_STEPS, Law, end_error, fit_law
from dashboards.load import Study
from dashboards.names import ENTROPY, REWARD, compared_keys, headline_keys
from dashboards.stats import Interval, PairedEffect, holm, paired_effect, t_interval
from dashboards.trend import friedman_p, page_trend
from dashboards.verdict import Verdict, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRow:
    """One level of the level table."""

    level: str
    label: str
    completed: int
    planned: int
    values: dict[str, Interval]
    """Mean over completed seeds with its t interval, by metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricTest:
    """How one metric differs between levels, beside the hypothesis."""

    metric: str
    first: str
    """Label: the first level (ordered factors) or the level with the lowest mean."""
    last: str
    """Label: the last level, or the level with the highest mean."""
    first_mean: float
    last_mean: float
    effect: PairedEffect | None
    """Last minus first level; None for unordered levels, where choosing the extremes would flatter it."""
    p_value: float
    """Page's trend (ordered), Friedman (unordered) or the paired t test (two levels)."""
    adjusted_p: float
    """Holm over the metrics tested, the hypothesis' own metric excepted."""
    primary: bool
    """This is the hypothesis' metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelLaw:
    """The reward-entropy law of one level."""

    level: str
    label: str
    law: Law
    """Pooled over the level's seeds."""
    run_r_squared: Interval
    """R^2 of the fits to single runs, over seeds."""
    run_end_error: Interval
    """Predicted minus actual final reward from the first 15 % of a run, over seeds."""


def cell_finals(study: Study, metric: str) -> pd.DataFrame:
    """The final value of ``metric`` in every completed cell: columns level, label, level_index, seed, value."""
    columns = ["level", "label", "level_index", "seed"]
    points = study.metrics[(study.metrics["metric"] == metric) & study.metrics["value"].notna()]
    points = points[points["signature"].isin(study.completed["signature"])]
    count = 1 if metric.startswith("eval/") else FINAL_STEPS
    tail = points.sort_values("step").groupby("signature").tail(count)
    return tail.groupby(columns)["value"].mean().reset_index().sort_values(["level_index", "seed"])


def final_table(study: Study, metric: str) -> pd.DataFrame:
    """[seed, level] final values in level order; NaN for cells that are not completed or did not log ``metric``."""
    finals = cell_finals(study, metric)
    table = finals.pivot_table(index="seed", columns="level", values="value", aggfunc="mean")
    table.columns.name = None
    return table.reindex(columns=list(study.levels["level"]), index=sorted(study.cells["seed"].unique()))


def labels(study: Study) -> dict[str, str]:
    """Level to label, in level order."""
    return dict(zip(study.levels["level"], study.levels["label"], strict=True))


def metric_keys(study: Study) -> list[str]:
    """Every metric that any cell logged."""
    return [str(key) for key in study.metrics["metric"].unique()]


def level_rows(study: Study, metrics: Sequence[str] | None = None) -> list[LevelRow]:
    """One row a level, in order, with the headline metrics unless others are named."""
    chosen = headline_keys(metric_keys(study)) if metrics is None else list(metrics)
    tables = {metric: final_table(study, metric) for metric in chosen}
    return [
        LevelRow(
            level=level,
            label=label,
            completed=int((study.completed["level"] == level).sum()),
            planned=int((study.cells["level"] == level).sum()),
            values={metric: t_interval(table[level]) for metric, table in tables.items()},
        )
        for level, label in labels(study).items()
    ]


def paired_effects(study: Study, metric: str = ENTROPY) -> list[tuple[str, PairedEffect]]:
    """(label, level minus reference) for every level but the reference, in order."""
    table, reference = final_table(study, metric), study.reference
    return [
        (label, paired_effect(table[level], table[reference]))
        for level, label in labels(study).items()
        if level != reference
    ]


def metric_tests(study: Study) -> list[MetricTest]:
    """Tests of the other metrics over the same levels, Holm-corrected together; the hypothesis' metric comes first."""
    logged = metric_keys(study)
    primary = study.factor.hypothesis.metric if study.factor.hypothesis else ""
    ordered = [key for key in [primary] if key in logged] + [key for key in compared_keys(logged) if key != primary]
    tests = [test for key in ordered if (test := _test(study, key, key == primary)) is not None]
    adjusted = holm([math.nan if test.primary else test.p_value for test in tests])
    return [replace(test, adjusted_p=p_value) for test, p_value in zip(tests, adjusted, strict=True)]


def _test(study: Study, metric: str, primary: bool) -> MetricTest | None:
    table, names = final_table(study, metric), labels(study)
    means = table.mean().dropna()
    if len(means) < 2:
        return None
    ends = (means.index[0], means.index[-1])
    effect: PairedEffect | None = paired_effect(table[ends[1]], table[ends[0]])
    if len(means) == 2:
        p_value = effect.p_value if effect else math.nan
    elif study.factor.ordered:
        trend = page_trend(table[means.index])
        p_value = trend.p_value if trend.seeds > 1 else math.nan
    else:
        ends, effect, p_value = (means.idxmin(), means.idxmax()), None, friedman_p(table[means.index])
    return MetricTest(
        metric=metric,
        first=names[ends[0]],
        last=names[ends[1]],
        first_mean=float(means[ends[0]]),
        last_mean=float(means[ends[1]]),
        effect=effect,
        p_value=p_value,
        adjusted_p=math.nan,
        primary=primary,
    )


def verdict(study: Study) -> Verdict:
    """The verdict on the study's hypothesis."""
    metric = study.factor.hypothesis.metric if study.factor.hypothesis else ENTROPY
    return judge(study.factor, final_table(study, metric), labels(study))


def entropy_reward(study: Study) -> pd.DataFrame:
    """Steps at which a cell logged both: columns signature, level, label, level_index, seed, step, entropy, reward."""
    both = study.metrics[study.metrics["metric"].isin([ENTROPY, REWARD])]
    index = ["signature", "level", "label", "level_index", "seed", "step"]
    wide = both.pivot_table(index=index, columns="metric", values="value").reindex(columns=[ENTROPY, REWARD])
    return wide.dropna().rename(columns={ENTROPY: "entropy", REWARD: "reward"}).reset_index()


def level_laws(study: Study) -> list[LevelLaw]:
    """The law of every level whose completed cells allow a fit."""
    points = entropy_reward(study)
    points = points[points["signature"].isin(study.completed["signature"])]
    found: list[LevelLaw] = []
    for level, label in labels(study).items():
        of_level = points[points["level"] == level].sort_values("step")
        law = fit_law(of_level["entropy"], of_level["reward"])
        if law is None:
            continue
        runs = [(run["entropy"].to_numpy(), run["reward"].to_numpy()) for _, run in of_level.groupby("signature")]
        fits = [fit_law(entropy, reward) for entropy, reward in runs]
        found.append(
            LevelLaw(
                level=level,
                label=label,
                law=law,
                run_r_squared=t_interval([fit.r_squared if fit else np.nan for fit in fits]),
                run_end_error=t_interval([end_error(entropy, reward) for entropy, reward in runs]),
            )
        )
    return found
