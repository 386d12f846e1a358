"""What moved with the entropy: reward, problem solving, diversity and calibration, between two levels and over runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from dashboards.statistics.intervals import CONFIDENCE, Interval, PairedEffect, paired_effect
from dashboards.sweep.glossary import Metric
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import ENTROPY, REWARD, evaluation_keys
from dashboards.sweep.summary import final_table, labels, metric_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedMetric:
    """One metric beside the entropy."""

    metric: Metric
    effect: PairedEffect | None
    """Last minus first of the compared levels; None where no two levels are compared."""
    with_entropy: Interval
    """Correlation of final values with final entropy over runs, seeds removed; NaN where too few runs tell."""


def compared_ends(sweep: SweepData, ends: tuple[str, str] | None) -> tuple[str, str] | None:
    """The two levels to compare on the first screen: those of the hypothesis, else first and last of ordered levels or
    of two; None where choosing two would be choosing by the result."""
    if ends is not None:
        return ends
    levels = [str(level) for level in sweep.levels["level"]]
    return (levels[0], levels[-1]) if len(levels) == 2 or (sweep.factor.ordered and len(levels) > 2) else None


def moved_keys(sweep: SweepData) -> list[str]:
    """Entropy, reward, pass@1 or avg@n and the widest pass@k of the first suite, diversity, calibration."""
    logged = metric_keys(sweep)
    evaluations = evaluation_keys(logged)
    first = [item for item in evaluations if item.suite == evaluations[0].suite]
    passes = [item.key for item in first if item.kind == "pass"]
    keys = [ENTROPY, REWARD, *passes[:1], *(passes[-1:] if len(passes) > 1 else [])]
    keys += ["diversity/distinct_4", "diversity/self_bleu", "diversity/distinct_correct", "calibration/ece"]
    return [key for key in keys if key in logged]


def moved_metrics(sweep: SweepData, ends: tuple[str, str] | None) -> list[MovedMetric]:
    """The metrics of :func:`moved_keys` between two levels, and how they go with the entropy over all runs."""
    entropy = final_table(sweep, ENTROPY)
    rows = []
    for key in moved_keys(sweep):
        table, metric = final_table(sweep, key), sweep.describe(key)
        effect = paired_effect(table[ends[1]], table[ends[0]], metric.range) if ends else None
        nothing = Interval(mean=math.nan, low=math.nan, high=math.nan, count=0)
        rows.append(
            MovedMetric(
                metric=metric,
                effect=effect,
                with_entropy=nothing if key == ENTROPY else within_seed_correlation(entropy, table),
            )
        )
    return rows


def within_seed_correlation(first: pd.DataFrame, second: pd.DataFrame) -> Interval:
    """Correlation of two [seed, level] tables over runs, each seed's mean taken off, with Fisher's z interval.

    A partial correlation given the seed: of N runs in S seeds the standard error of z is 1 / sqrt(N - S - 2). NaN
    without two levels of a seed or where one does not vary; ``count`` is N. Anderson 1958, section 4.3.
    """
    observed = first.notna() & second.notna()
    observed = observed[observed.sum(axis=1) > 1]
    count, seeds = int(observed.to_numpy().sum()), len(observed)
    x, y = (
        (
            table.loc[observed.index]
            .where(observed)
            .sub(table.loc[observed.index].where(observed).mean(axis=1), axis=0)
        ).to_numpy()[observed.to_numpy(dtype=bool)]
        for table in (first, second)
    )
    size = math.sqrt(float(x @ x) * float(y @ y))
    if not size > 0:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, count=count)
    r = float(np.clip(x @ y / size, -1, 1))
    if count - seeds - 2 <= 0 or abs(r) == 1:
        return Interval(mean=r, low=math.nan, high=math.nan, count=count)
    half = float(ndtri(0.5 + CONFIDENCE / 2)) / math.sqrt(count - seeds - 2)
    return Interval(mean=r, low=math.tanh(math.atanh(r) - half), high=math.tanh(math.atanh(r) + half), count=count)


def ends_words(sweep: SweepData, ends: tuple[str, str]) -> tuple[str, str]:
    """Labels of the two levels."""
    names = labels(sweep)
    return names.get(ends[0], ends[0]), names.get(ends[1], ends[1])
