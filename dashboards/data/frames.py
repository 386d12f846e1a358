"""``dashboards.load``: a study or a run as tidy data frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dashboards.store.store import default_uri
from dashboards.sweep.artifacts import load_reliability, load_rollouts, load_samples, load_tokens
from dashboards.sweep.load import SweepData
from dashboards.sweep.run import load as load_any
from dashboards.sweep.summary import cell_finals, metric_keys

_RUN_COLUMNS = ("signature", "level", "level_index", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """A study or a run as data frames. Rows belong together by ``signature``, the name of a run."""

    sweep: SweepData
    """What the frames are made of: factor, settings, MLflow runs."""

    @property
    def name(self) -> str:
        """Name of the study, or the signature of the run."""
        return self.sweep.name

    @property
    def runs(self) -> pd.DataFrame:
        """One row a run: signature, level, label, level_index, seed, state, run_id, last_step, message."""
        return self.sweep.cells.copy()

    @property
    def metrics(self) -> pd.DataFrame:
        """One row a run, metric and step: signature, level, label, level_index, seed, step, metric, value (NaN where it
        was not finite). Units are in :attr:`definitions`."""
        return self.sweep.metrics.copy()

    @property
    def finals(self) -> pd.DataFrame:
        """One row a completed run and metric: the mean over the last 5 logged steps, of an evaluation the last value;
        columns level, label, level_index, seed, metric, value."""
        tables = [cell_finals(self.sweep, key).assign(metric=key) for key in metric_keys(self.sweep)]
        columns = ["level", "label", "level_index", "seed", "metric", "value"]
        return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)

    @property
    def definitions(self) -> pd.DataFrame:
        """One row a metric: metric, label, unit, low, high, better, definition."""
        described = [self.sweep.describe(key) for key in metric_keys(self.sweep)]
        rows = [
            (item.key, item.label, item.unit, item.range.low, item.range.high, item.better, item.definition)
            for item in described
        ]
        return pd.DataFrame(rows, columns=["metric", "label", "unit", "low", "high", "better", "definition"])

    def wide(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a run and step, one column a metric (all of them, or those named)."""
        points = self.sweep.metrics
        chosen = points if metrics is None else points[points["metric"].isin(metrics)]
        table = chosen.pivot(index=[*_RUN_COLUMNS, "step"], columns="metric", values="value")
        table = table.sort_index(level=["level_index", "seed", "step"]).reset_index()
        table.columns.name = None
        return table if metrics is None else table.reindex(columns=[*_RUN_COLUMNS, "step", *metrics])

    def samples(self) -> pd.DataFrame:
        """One row a sampled response, text included."""
        return load_samples(self.sweep)

    def reliability(self) -> pd.DataFrame:
        """One row a point of a reliability diagram."""
        return load_reliability(self.sweep)

    def tokens(self) -> pd.DataFrame:
        """One row a response of a ledger, with a list for each of its numbers, one entry a token."""
        return load_tokens(self.sweep)

    def rollouts(self) -> pd.DataFrame:
        """One row a response of the steps that were kept (``accounting.rollouts_every``), all of them: text, reward,
        correct, and for each token a log-prob, an entropy, an advantage and, where a ledger looked, an influence."""
        return load_rollouts(self.sweep)


def load(name: str | Path, uri: str | None = None) -> Frames:
    """A study or a run as data frames.

    ``name`` is a study (its newest sweep), a run's signature or its beginning, an MLflow run id or run name, or the
    folder of a run. ``uri`` is MLflow's tracking URI; by default MLFLOW_TRACKING_URI, else ``outputs/mlflow.db``.
    Raises ValueError with one sentence where there is no such thing.
    """
    return Frames(sweep=load_any(uri or default_uri(), str(name)))
