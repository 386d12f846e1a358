"""The entropy ledger of a sweep's completed runs: cumulated, compared between levels, and how well it predicts.

The trainer writes one ledger for some of the steps (``ledger/*``, specification 15.6). Between them every part is
interpolated linearly, so that the cumulated account covers all steps. What neither the ledgers nor the interpolation
explain, the entropy on other contexts included, is a part of its own: the parts add up to the change of entropy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dashboards.statistics.clusters import mean_over_runs, resampled_runs, run_bootstrap
from dashboards.statistics.intervals import Floats, Interval, t_interval
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import ENTROPY
from dashboards.sweep.summary import FINAL_STEPS, labels

MIN_LEDGERS = 3
"""Below this many ledgers a run's account is not cumulated: interpolation would make up most of it."""
QUADRANTS = ("positive_likely", "positive_unlikely", "negative_likely", "negative_unlikely")
PARTS: Mapping[str, str] = {
    "positive_likely": "positive, likely tokens",
    "positive_unlikely": "positive, unlikely tokens",
    "negative_likely": "negative, likely tokens",
    "negative_unlikely": "negative, unlikely tokens",
    "unsampled": "tokens not looked at",
    "regularizers": "regularizers",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "residual": "residual (second order)",
    "elsewhere": "outside the ledger",
}
"""Causes of a change of entropy, in words. ``unsampled``: policy term minus its quadrants. ``residual``: measured minus
predicted. ``elsewhere``: the change between rollouts minus the cumulated measured one: other contexts, and the error of
the interpolation."""
ESTIMATORS: Mapping[str, str] = {
    "exact": "exact tabular law",
    "steer_published": "STEER, published",
    "steer_released": "STEER, released",
    "covariance": "covariance",
    "surprisal": "\u2212A\u00b7log p",
    "advantage": "advantage alone",
    "probability": "probability alone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The cumulated ledger of one run."""

    level: str
    seed: int
    ledgers: int
    """Steps with a ledger."""
    parts: pd.DataFrame
    """[step, part] nats: what each part did to the entropy before ``step``; columns :data:`PARTS`, index the steps."""
    halves: pd.DataFrame
    """[step, (learning, noise)] nats: the policy term by what two half-batches agree on."""
    change: pd.Series
    """[step] nats: entropy of the step's rollouts minus that of the first; NaN where it was not logged."""

    def at_end(self) -> pd.Series:
        """Each part at the end of the run, as final values are taken: the mean over the last logged steps."""
        return self.parts.loc[self.change.dropna().tail(FINAL_STEPS).index].mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What one part contributes to the difference between two levels."""

    part: str
    words: str
    difference: Interval
    """Mean over seeds of the paired difference, nats, with its t interval."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How well the first order predicts the measured change of entropy, step by step."""

    slope: Interval
    """Least squares of measured on predicted change; 1 is perfect."""
    correlation: Interval
    points: int
    """Steps of all runs. The count of the intervals is the number of runs, which are resampled whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedEstimator:
    """One estimator's correlation with the influence of tokens."""

    name: str
    words: str
    correlation: Interval
    """Mean over the steps of a run, then over runs; interval by resampling runs."""
    steps: tuple[float, float]
    """10th and 90th percentile over all steps of all runs."""
    ahead: float
    """Share of the resamples in which it is above the next one of the ranking; NaN for the last, and for one run."""


def ledger_points(sweep: SweepData) -> pd.DataFrame:
    """One row a (completed run, step with a ledger): signature, level, label, level_index, seed, step, and the
    ``ledger/*`` metrics without their prefix."""
    index = ["signature", "level", "label", "level_index", "seed", "step"]
    chosen = sweep.metrics["metric"].str.startswith("ledger/") & sweep.metrics["signature"].isin(
        sweep.completed["signature"]
    )
    wide = sweep.metrics[chosen].pivot_table(index=index, columns="metric", values="value")
    wide.columns = [str(key).removeprefix("ledger/") for key in wide.columns]
    return wide.reset_index().sort_values(["level_index", "seed", "step"]).reset_index(drop=True)


def accounts(sweep: SweepData) -> list[Account]:
    """The account of every completed run with enough ledgers, by level and seed."""
    points = ledger_points(sweep)
    entropy = sweep.metrics[sweep.metrics["metric"] == ENTROPY]
    result = []
    for signature, rows in points.groupby("signature", sort=False):
        logged = entropy[entropy["signature"] == signature].set_index("step")["value"].dropna()
        if len(rows) >= MIN_LEDGERS and len(logged) > 1:
            result.append(_account(rows, logged))
    return result


def _account(rows: pd.DataFrame, logged: pd.Series) -> Account:
    parts = pd.DataFrame({name: _column(rows, name) for name in PARTS if name not in ("unsampled", "elsewhere")})
    parts["unsampled"] = _column(rows, "policy") - parts[list(QUADRANTS)].sum(axis=1)
    halves = pd.DataFrame({"learning": _column(rows, "policy_agreed"), "noise": _column(rows, "policy_noise")})
    steps, last = rows["step"].to_numpy(), int(logged.index.max())
    parts, halves, measured = (
        _cumulated(steps, frame, last) for frame in (parts, halves, pd.DataFrame({"": _column(rows, "measured")}))
    )
    change = (logged - logged.iloc[0]).reindex(parts.index)
    # Between steps whose entropy was not logged the rest is unknown, and taken to grow evenly.
    parts["elsewhere"] = (change - measured[""]).interpolate()
    return Account(
        level=str(rows["level"].iloc[0]),
        seed=int(rows["seed"].iloc[0]),
        ledgers=len(rows),
        parts=parts[list(PARTS)],
        halves=halves,
        change=change,
    )


def _column(rows: pd.DataFrame, name: str) -> Floats:
    """A ledger metric of a run; 0 where no step has it."""
    values = rows[name].to_numpy(dtype="float64") if name in rows else np.zeros(len(rows))
    return np.nan_to_num(values)


def _cumulated(steps: Floats, values: pd.DataFrame, last: int) -> pd.DataFrame:
    """[0..last, column]: the sum over the steps before each one, of values interpolated between ``steps`` and constant
    outside them."""
    grid = np.arange(last)
    sums = {name: np.concatenate([[0.0], np.interp(grid, steps, values[name]).cumsum()]) for name in values}
    return pd.DataFrame(sums, index=pd.RangeIndex(last + 1, name="step"))


def causes(accounts: Sequence[Account], level: str, reference: str) -> list[Cause]:
    """What each part contributes to the difference of ``level`` from ``reference``, over the seeds that both have, the
    largest first; parts that are 0 throughout are left out. They add up to the difference of the entropy changes."""
    final_parts = {(account.level, account.seed): account.at_end() for account in accounts}
    seeds = [seed for name, seed in final_parts if name == level and (reference, seed) in final_parts]
    if not seeds:
        return []
    differences = pd.DataFrame([final_parts[level, seed] - final_parts[reference, seed] for seed in seeds])
    parts = [
        Cause(part=part, words=words, difference=t_interval(differences[part]))
        for part, words in PARTS.items()
        if (differences[part] != 0).any()
    ]
    return sorted(parts, key=lambda cause: -abs(cause.difference.mean))


def all_causes(sweep: SweepData, accounts: Sequence[Account]) -> list[tuple[str, dict[str, Cause]]]:
    """(label, causes by part) of every level but the reference, in order; without those that nothing is known of."""
    rows = [
        (label, {cause.part: cause for cause in causes(accounts, level, sweep.reference)})
        for level, label in labels(sweep).items()
        if level != sweep.reference
    ]
    return [row for row in rows if row[1]]


def prediction(points: pd.DataFrame) -> Prediction | None:
    """Measured against predicted change over all steps of all runs; None below three steps."""
    if not {"measured", "predicted"} <= set(points) or len(points) < 3:
        return None
    runs = [run[["predicted", "measured"]].to_numpy() for _, run in points.groupby("signature")]
    return Prediction(
        slope=run_bootstrap(runs, _slope), correlation=run_bootstrap(runs, _correlation), points=len(points)
    )


def _slope(rows: Floats) -> float:
    x, y = (rows - rows.mean(axis=0)).T
    return float(x @ y / (x @ x)) if x @ x > 0 else np.nan


def _correlation(rows: Floats) -> float:
    x, y = (rows - rows.mean(axis=0)).T
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else np.nan


def _means(values: Floats) -> Floats:
    """Mean over axis 1 of [resamples, runs, columns] without NaN; NaN where a resample drew no run that has one."""
    known = ~np.isnan(values)
    counts = known.sum(axis=1)
    return np.where(counts > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def _share_above(first: Floats, second: Floats) -> Floats:
    """Share of the rows with both values in which the first is greater, by column; NaN where no row has both."""
    both = ~(np.isnan(first) | np.isnan(second))
    counts = both.sum(axis=0)
    return np.where(counts > 0, (first > second).sum(axis=0) / np.maximum(counts, 1), np.nan)


def ranking(points: pd.DataFrame) -> list[RankedEstimator]:
    """The estimators by their correlation with the influence, best first; those that were logged."""
    names = [name for name in ESTIMATORS if f"corr_{name}" in points]
    if not names:
        return []
    columns = [f"corr_{name}" for name in names]
    runs = points.groupby("signature")[columns].mean()
    order = runs.mean().sort_values(ascending=False).index
    picks = resampled_runs(len(runs))
    means = _means(runs[order].to_numpy()[picks])
    ahead = [*_share_above(means[:, :-1], means[:, 1:]), np.nan] if len(runs) > 1 else [np.nan] * len(order)
    return [
        RankedEstimator(
            name=column.removeprefix("corr_"),
            words=ESTIMATORS[column.removeprefix("corr_")],
            correlation=mean_over_runs(runs[column].to_numpy()),
            steps=(float(points[column].quantile(0.1)), float(points[column].quantile(0.9))),
            ahead=float(share),
        )
        for column, share in zip(order, ahead, strict=True)
    ]
