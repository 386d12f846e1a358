"""The interface of a store of runs, and what its implementations share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlparse

import pandas as pd

DEFAULT_URI = "sqlite:///outputs/mlflow.db"
METRIC_COLUMNS = ("run_id", "metric", "step", "value", "time")
_INFINITE = 1.7e308
"""MLflow stores an infinity as the largest double."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One MLflow run without its metrics."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    """MLflow's own status: RUNNING, SCHEDULED, FINISHED, FAILED or KILLED."""
    start_time: float
    """Unix seconds."""
    artifact_uri: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """Read access to MLflow runs. Deleted runs and experiments are ignored."""

    def runs_with_tag(
        self, key: str, values: Sequence[str], experiment_id: str | None = None, *, params: bool = False
    ) -> list[RunRecord]:
        """Active runs whose tag ``key`` is one of ``values``, newest first."""
        ...

    def metrics(self, run_ids: Sequence[str], keys: Sequence[str] | None = None) -> pd.DataFrame:
        """Every logged point of the runs: columns run_id, metric, step, value, time (unix ms); NaN where not finite."""
        ...

    def read_text(self, run: RunRecord, path: str) -> str | None:
        """An artifact's text, or None when the run has no artifact of that path."""
        ...

    def files(self, run: RunRecord, folder: str) -> list[Path]:
        """The artifacts in a folder of the run's, as files on this machine, by name; none where there is no folder."""
        ...


def default_uri() -> str:
    """The tracking URI in force: MLFLOW_TRACKING_URI, else the project's SQLite file below the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def finite_or_nan(values: pd.Series) -> pd.Series:
    """Values with infinities (MLflow stores them as the largest double) replaced by NaN."""
    numbers = values.astype("float64")
    return numbers.where(numbers.abs() < _INFINITE)


def local_artifact(artifact_uri: str, path: str) -> Path | None:
    """The file behind an artifact that lies on this machine; None when its root has another scheme."""
    parsed = urlparse(artifact_uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path)) / path
    return Path(artifact_uri) / path if parsed.scheme == "" else None


def files_in(folder: Path) -> list[Path]:
    """The files of a folder by name, hidden ones (such as half-written ones) apart; none where there is no folder."""
    return sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))


def download_files(uri: str, run_id: str, folder: str) -> list[Path]:
    """The artifacts in a folder through MLflow; none when the run has no such folder."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read by mlflow at import
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    if not MlflowClient(tracking_uri=uri).list_artifacts(run_id, folder):
        return []
    return files_in(Path(download_artifacts(run_id=run_id, artifact_path=folder, tracking_uri=uri)))


def download_text(uri: str, run_id: str, path: str) -> str | None:
    """An artifact's text through MLflow; None when the run has no such artifact."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read by mlflow at import
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    parent = path.rpartition("/")[0] or None
    if path not in {item.path for item in MlflowClient(tracking_uri=uri).list_artifacts(run_id, parent)}:
        return None
    return Path(download_artifacts(run_id=run_id, artifact_path=path, tracking_uri=uri)).read_text(encoding="utf-8")
