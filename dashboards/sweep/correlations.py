"""Entropy against everything else that was logged: rank correlations within runs and across levels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from dashboards.statistics.intervals import Bounds, Interval, bounded_interval
from dashboards.sweep.glossary import Metric
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import ENTROPY, SAMPLED_REWARD, evaluation_keys
from dashboards.sweep.summary import final_table, metric_keys

MIN_STEPS = 5
"""Below this many steps that have both, a run has no correlation."""
_LEVELS = 4
"""Below this many levels that have both, a seed has no correlation."""
_RANGE = Bounds(low=-1.0, high=1.0)
_OF_BATCHES = (
    SAMPLED_REWARD,
    "rollout/length_mean",
    "diversity/ngram",
    "diversity/distinct_4",
    "diversity/self_bleu",
    "diversity/answer_entropy",
    "entropy/mutual_information",
    "diversity/distinct_correct",
    "calibration/ece",
    "calibration/brier",
    "calibration/auroc",
)
_KINDS = ("avg", "pass")
_OF_SUITES = ("token_entropy", "ngram", "answer_entropy", "distinct_correct", "ece", "brier", "auroc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """How one metric goes with the entropy: Spearman's rank correlations, means over seeds with t intervals."""

    metric: Metric
    within: Interval
    """Over the steps of a run; a seed's value is the mean over its runs."""
    across: Interval
    """Over the final values of a seed's runs, one a level."""


def entropy_key(logged: Iterable[str]) -> str:
    """The entropy that is compared: at temperature 1 where that was logged."""
    return "policy/entropy_t1" if "policy/entropy_t1" in set(logged) else ENTROPY


def compared_with_entropy(logged: Sequence[str]) -> list[str]:
    """Reward, length, diversity and calibration of the training batches; of every suite avg@n, pass@1, the widest
    pass@k, diversity and calibration; those that were logged."""
    evaluations, chosen = evaluation_keys(logged), list(_OF_BATCHES)
    for suite in dict.fromkeys(item.suite for item in evaluations):
        of = {kind: [item.key for item in evaluations if (item.suite, item.kind) == (suite, kind)] for kind in _KINDS}
        chosen += [*of["avg"][-1:], *of["pass"][:1], *of["pass"][-1:]]
        chosen += [f"eval/{suite}/{name}" for name in _OF_SUITES]
    present = set(logged)
    return [key for key in dict.fromkeys(chosen) if key in present]


def against_entropy(sweep: SweepData) -> list[Correlation]:
    """The metrics of :func:`compared_with_entropy`, each with both correlations; NaN where too little was logged."""
    logged = metric_keys(sweep)
    entropy, keys = entropy_key(logged), compared_with_entropy(logged)
    points = sweep.metrics[sweep.metrics["metric"].isin([entropy, *keys])]
    points = points[points["signature"].isin(sweep.completed["signature"])]
    runs = [
        (int(str(seed)), run.pivot(index="step", columns="metric", values="value"))
        for (seed, _), run in points.groupby(["seed", "signature"])
    ]
    finals = final_table(sweep, entropy)
    return [
        Correlation(
            metric=sweep.describe(key),
            within=bounded_interval(within_runs(runs, entropy, key), _RANGE),
            across=bounded_interval(across_levels(finals, final_table(sweep, key)), _RANGE),
        )
        for key in keys
    ]


def within_runs(runs: Sequence[tuple[int, pd.DataFrame]], entropy: str, metric: str) -> list[float]:
    """One number a seed: the mean over its runs of Spearman's correlation over steps. ``runs``: (seed, [step, metric]).

    The runs of a seed share their problems and their first model, so they count as one.
    """
    by_seed: dict[int, list[float]] = {}
    for seed, frame in runs:
        if not math.isnan(rho := rank_correlation(logged_pairs(frame, entropy, metric).to_numpy(), MIN_STEPS)):
            by_seed.setdefault(seed, []).append(rho)
    return [float(np.mean(values)) for values in by_seed.values()]


def across_levels(entropy: pd.DataFrame, metric: pd.DataFrame) -> list[float]:
    """One number a seed: Spearman's correlation over its levels of two [seed, level] tables of final values."""
    pairs = [pd.concat([entropy.loc[seed], metric.loc[seed]], axis=1).dropna().to_numpy() for seed in entropy.index]
    return [rho for pair in pairs if not math.isnan(rho := rank_correlation(pair, _LEVELS))]


def logged_pairs(frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """[steps that have both metrics, 2]; empty where one was not logged."""
    return frame[[x, y]].dropna() if {x, y} <= set(frame) else pd.DataFrame({x: [], y: []})


def rank_correlation(pairs: np.ndarray, least: int) -> float:
    """Spearman's correlation of [n, 2] pairs; NaN below ``least`` of them or where one side does not vary."""
    if len(pairs) < least or (np.ptp(pairs, axis=0) == 0).any():
        return math.nan
    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
