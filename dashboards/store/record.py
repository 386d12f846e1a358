"""A study kept as two files, which every command reads as a store: ``--uri FOLDER``.

``study.json`` has the MLflow runs of a sweep with their tags, parameters and small text artifacts, ``metrics.parquet``
every point that they logged. A record of a few megabytes can be committed, and needs no MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dashboards.store.store import METRIC_COLUMNS, RunRecord

STUDY, METRICS = "study.json", "metrics.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStore:
    """The runs of a record."""

    runs: tuple[RunRecord, ...]
    texts: dict[str, dict[str, str]]
    """Run id -> path -> text."""
    points: pd.DataFrame

    @classmethod
    def open(cls, folder: Path) -> RecordStore:
        """Read a record. Raises ValueError where a file is damaged."""
        try:
            document = json.loads((folder / STUDY).read_text(encoding="utf-8"))
            runs = tuple(RunRecord(**run) for run in document["runs"])
            points = pd.read_parquet(folder / METRICS)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ValueError(f"the record {folder} cannot be read: {error}") from error
        return cls(runs=runs, texts=document["texts"], points=points)

    def runs_with_tag(
        self, key: str, values: Sequence[str], experiment_id: str | None = None, *, params: bool = False
    ) -> list[RunRecord]:
        """Runs whose tag ``key`` is one of ``values``, newest first."""
        matching = [run for run in self.runs if run.tags.get(key) in values]
        return sorted(matching, key=lambda run: -run.start_time)

    def metrics(self, run_ids: Sequence[str], keys: Sequence[str] | None = None) -> pd.DataFrame:
        """Every point of the runs, in the columns of a store."""
        chosen = self.points["run_id"].isin(run_ids)
        if keys is not None:
            chosen &= self.points["metric"].isin(keys)
        return self.points[chosen].astype({"run_id": str, "metric": str, "value": "float64"})[list(METRIC_COLUMNS)]

    def read_text(self, run: RunRecord, path: str) -> str | None:
        """A text artifact, where the record kept it."""
        return self.texts.get(run.run_id, {}).get(path)

    def files(self, run: RunRecord, folder: str) -> list[Path]:
        """None: a record keeps no files of the runs."""
        return []


def is_record(name: str) -> bool:
    """Whether ``name`` is the folder of a record."""
    return "://" not in name and (Path(name) / STUDY).is_file() and (Path(name) / METRICS).is_file()
