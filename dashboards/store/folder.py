"""Reads one run from its folder, ``OUTPUT/runs/SIGNATURE``, as a store that holds only this run.

Metrics are those of ``metrics.jsonl`` and ``timings.jsonl``; a table such as ``samples.json`` is the ``.jsonl`` of that
name. An incomplete last line is left out: the run is writing it, or was killed while writing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dashboards.store.store import METRIC_COLUMNS, RunRecord, files_in, finite_or_nan

_TABLES = ("samples.json", "reliability.json", "contamination.json", "tokens.json")
_STATUS = {"COMPLETED": "FINISHED", "FAILED": "FAILED", "CANCELLED": "KILLED", "QUEUED": "SCHEDULED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderStore:
    """Implements :class:`dashboards.store.store.Store`."""

    path: Path
    run: RunRecord

    @staticmethod
    def open(path: Path) -> FolderStore:
        """Read configuration and status; ValueError in one sentence where the configuration cannot be read."""
        path = path.resolve()
        try:
            config = yaml.safe_load((path / "run.yaml").read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"{path / 'run.yaml'} cannot be read: {error}") from error
        status = json.loads((path / "status.json").read_text()) if (path / "status.json").is_file() else {}
        state, study = str(status.get("state") or "RUNNING"), config.get("study") or {}
        tags = {
            "kind": "cell",
            "signature": path.name,
            "state": state,
            "message": str(status.get("message") or ""),
            "seed": str(config.get("seed", 0)),
            "level": str(study.get("level") or ""),
            "study": str(study.get("name") or ""),
        }
        run = RunRecord(
            run_id=path.name,
            experiment_id="",
            name=path.name,
            status=_STATUS.get(state, "RUNNING"),
            start_time=(path / "run.yaml").stat().st_mtime,
            artifact_uri=str(path),
            tags=tags,
            params=dict(_flat(config)),
        )
        return FolderStore(path=path, run=run)

    def runs_with_tag(
        self, key: str, values: Sequence[str], experiment_id: str | None = None, *, params: bool = False
    ) -> list[RunRecord]:
        return [self.run] if self.run.tags.get(key) in values else []

    def metrics(self, run_ids: Sequence[str], keys: Sequence[str] | None = None) -> pd.DataFrame:
        rows = [
            (self.run.run_id, key, row["step"], math.nan if value is None else value, number)
            for name in ("metrics.jsonl", "timings.jsonl")
            for number, row in enumerate(_lines(self.path / name))
            for key, value in row["metrics"].items()
            if self.run.run_id in run_ids and (keys is None or key in keys)
        ]
        frame = pd.DataFrame(rows, columns=list(METRIC_COLUMNS))
        numbers = pd.to_numeric(frame["value"], errors="coerce")  # "inf" and "nan" are written as words
        return frame.assign(value=finite_or_nan(numbers))

    def read_text(self, run: RunRecord, path: str) -> str | None:
        file = self.path / path
        if file.is_file():
            return file.read_text(encoding="utf-8")
        table = self.path / f"{path}l"
        return json.dumps(list(_lines(table))) if path in _TABLES and table.is_file() else None

    def files(self, run: RunRecord, folder: str) -> list[Path]:
        return files_in(self.path / folder)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is damaged: {error}") from error


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as ``a.b.c`` and text, as MLflow has them."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None and value != {}:
            yield f"{prefix}{key}", str(value)


def is_run_folder(name: str) -> bool:
    """Whether ``name`` is the folder of a run, ``OUTPUT/runs/SIGNATURE``."""
    return "://" not in name and (Path(name) / "run.yaml").is_file()
