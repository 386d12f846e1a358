"""The number that a claim takes from a run: each a function of the runs of one seed, by arm.

A run is a frame [step, metric] with NaN where nothing was logged. A number that cannot be had is NaN, and its seed then
does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import linregress

from dashboards.statistics.law import early_steps, fit_law, prediction_error
from dashboards.sweep.correlations import MIN_STEPS, logged_pairs, rank_correlation
from dashboards.sweep.names import ENTROPY, SAMPLED_REWARD
from dashboards.sweep.summary import FINAL_STEPS, final_steps

Runs = Mapping[str, pd.DataFrame]
"""Arm -> frame of the run of one seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A number of a run."""

    of: Callable[[Runs, Any, Mapping[str, Any]], dict[str, float]]
    """From the runs of a seed, the argument and the options."""
    metrics: Callable[[Any, Mapping[str, Any]], set[str]]
    options: tuple[str, ...] = ()


def evaluate(value: Mapping[str, Any], runs: Runs) -> dict[str, float]:
    """The number of each arm of one seed."""
    name = next(iter(value))
    return VALUES[name].of(runs, value[name], value)


def metrics_of(value: Mapping[str, Any]) -> set[str]:
    """Metrics that a value reads."""
    name = next(iter(value))
    return VALUES[name].metrics(value[name], value)


def series(frame: pd.DataFrame, metric: str) -> pd.Series:
    """[steps at which it was logged]."""
    return frame[metric].dropna() if metric in frame else pd.Series(dtype=np.float64)


def end(frame: pd.DataFrame, metric: str) -> float:
    """Mean over the last 5 logged steps; of an evaluation the last value. The unit of the metric."""
    logged = series(frame, metric)
    return float(logged.tail(final_steps(metric)).mean()) if len(logged) else math.nan


def change(frame: pd.DataFrame, metric: str) -> float:
    """:func:`end` minus the first logged value."""
    logged = series(frame, metric)
    return end(frame, metric) - float(logged.iloc[0]) if len(logged) > 1 else math.nan


def spread(frame: pd.DataFrame, metric: str) -> float:
    """Standard deviation of the changes from one logged step to the next: sd_t(x_{t+1} - x_t)."""
    steps = series(frame, metric).diff().dropna()
    return float(steps.std()) if len(steps) > 1 else math.nan


def deviation(frame: pd.DataFrame, metric: str, target: float | str) -> float:
    """mean_t |x_t - target| over the second half of the run; ``target`` may be ``first``: the first logged value."""
    logged = series(frame, metric)
    if logged.empty:
        return math.nan
    centre = float(logged.iloc[0]) if target == "first" else float(target)
    return float((logged.tail(math.ceil(len(logged) / 2)) - centre).abs().mean())


def correlation(frame: pd.DataFrame, x: str, y: str, rank: bool = True) -> float:
    """Correlation of two metrics over the steps that have both: Spearman's, or Pearson's without ``rank``."""
    pairs = logged_pairs(frame, x, y).to_numpy()
    if rank:
        return rank_correlation(pairs, MIN_STEPS)
    if len(pairs) < MIN_STEPS or (np.ptp(pairs, axis=0) == 0).any():
        return math.nan
    return float(np.corrcoef(*pairs.T)[0, 1])


def slope(frame: pd.DataFrame, x: str, y: str) -> float:
    """Least-squares slope of y on x over the steps that have both."""
    pairs = logged_pairs(frame, x, y)
    if len(pairs) < MIN_STEPS or pairs.iloc[:, 0].std() == 0:
        return math.nan
    return float(linregress(*pairs.to_numpy().T).slope)


def share_below(frame: pd.DataFrame, metric: str, bound: float = 0.0) -> float:
    """Share of the logged steps at which the metric is below ``bound``."""
    logged = series(frame, metric)
    return float((logged < bound).mean()) if len(logged) else math.nan


def share_of(frame: pd.DataFrame, metric: str, among: list[str]) -> float:
    """sum_t |x_t| / sum over the metrics ``among`` of sum_t |x_t|."""
    sizes = {key: float(series(frame, key).abs().sum()) for key in among}
    total = sum(sizes.values())
    return sizes[metric] / total if total > 0 else math.nan


def lead(frame: pd.DataFrame, first: str, over: list[str]) -> float:
    """How far one estimator's correlation with the influence of tokens is above the best of the others: the mean over
    steps of ``ledger/corr_FIRST`` minus the largest mean of the others."""
    means = {name: float(series(frame, f"ledger/corr_{name}").mean()) for name in [first, *over]}
    return means[first] - max(means[name] for name in over)


def law_error(frame: pd.DataFrame, fraction: float) -> float:
    """RMSE of R = -a e^H + b, fitted on the first ``fraction`` of the steps, over the others; in units of reward."""
    pairs = logged_pairs(frame, ENTROPY, SAMPLED_REWARD)
    first = max(early_steps(len(pairs)), math.ceil(fraction * len(pairs)))
    return prediction_error(pairs[ENTROPY], pairs[SAMPLED_REWARD], first)


def law_fit(frame: pd.DataFrame, fraction: float) -> float:
    """R^2 of R = -a e^H + b over the first ``fraction`` of the steps (1: all)."""
    pairs = logged_pairs(frame, ENTROPY, SAMPLED_REWARD)
    law = fit_law(*pairs.head(math.ceil(fraction * len(pairs))).to_numpy().T)
    return law.r_squared.mean if law is not None else math.nan


def at_equal_reward(runs: Runs, metric: str) -> dict[str, float]:
    """The metric where every arm has the same reward.

    Reward and metric are smoothed over 5 steps. The reward is the highest that all arms of the seed reach; an arm's
    value is that of the first step at which it does.
    """
    smooth = {
        arm: pd.DataFrame({"reward": series(frame, SAMPLED_REWARD), "value": series(frame, metric)})
        .dropna()
        .rolling(FINAL_STEPS)
        .mean()
        .dropna()
        for arm, frame in runs.items()
    }
    if any(frame.empty for frame in smooth.values()):
        return dict.fromkeys(runs, math.nan)
    reached = min(frame["reward"].max() for frame in smooth.values())
    return {arm: float(frame.loc[frame["reward"] >= reached, "value"].iloc[0]) for arm, frame in smooth.items()}


def _per_run(function: Callable[..., float], *options: str) -> Value:
    """A number that one run gives by itself; ``function`` takes the frame, the argument(s) and the options."""

    def of(runs: Runs, argument: Any, value: Mapping[str, Any]) -> dict[str, float]:
        several = argument if isinstance(argument, list) else [argument]
        chosen = {key: value[key] for key in options if key in value}
        return {arm: function(frame, *several, **chosen) for arm, frame in runs.items()}

    return Value(of=of, metrics=_named, options=options)


def _named(argument: Any, value: Mapping[str, Any]) -> set[str]:
    named = [*(argument if isinstance(argument, list) else [argument]), *value.get("among", [])]
    return {str(key) for key in named}


def _ledger(argument: Any, value: Mapping[str, Any]) -> set[str]:
    return {f"ledger/corr_{name}" for name in [argument, *value.get("over", [])]}


def _law(function: Callable[[pd.DataFrame, float], float]) -> Value:
    return Value(
        of=lambda runs, argument, _: {arm: function(frame, float(argument)) for arm, frame in runs.items()},
        metrics=lambda *_: {ENTROPY, SAMPLED_REWARD},
    )


VALUES: Mapping[str, Value] = {
    "end": _per_run(end),
    "change": _per_run(change),
    "spread": _per_run(spread),
    "deviation": _per_run(deviation, "target"),
    "correlation": _per_run(correlation, "rank"),
    "slope": _per_run(slope),
    "share_below": _per_run(share_below, "bound"),
    "share_of": _per_run(share_of, "among"),
    "lead": Value(of=_per_run(lead, "over").of, metrics=_ledger, options=("over",)),
    "law_error": _law(law_error),
    "law_fit": _law(law_fit),
    "at_equal_reward": Value(
        of=lambda runs, argument, _: at_equal_reward(runs, str(argument)),
        metrics=lambda argument, _: {str(argument), SAMPLED_REWARD},
    ),
}
"""Name in a claim's YAML -> the number."""
