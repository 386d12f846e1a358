"""Reads a SQLite MLflow store with SQL on a read-only connection, which neither locks nor creates the file.

The tables (runs, tags, params, metrics, experiments) are those of MLflow 3; a test compares with the MLflow client.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from dashboards.store.store import (
    METRIC_COLUMNS,
    RunRecord,
    download_files,
    download_text,
    files_in,
    finite_or_nan,
    local_artifact,
)

_CHUNK = 500
"""Values per IN (...) list, below SQLite's limit on bound variables in every version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteStore:
    """Implements :class:`dashboards.store.store.Store`."""

    uri: str
    path: Path

    @staticmethod
    def open(uri: str) -> SqliteStore:
        """Check that the file exists and is an MLflow store; ValueError in one sentence when not."""
        path = Path(uri.removeprefix("sqlite:").removeprefix("///").partition("?")[0])
        if not path.is_file():
            raise ValueError(
                f"there is no MLflow store at {path} (tracking URI {uri}): run a sweep first, "
                "or name the store with --uri or MLFLOW_TRACKING_URI"
            )
        store = SqliteStore(uri=uri, path=path)
        try:
            store._query("SELECT run_uuid FROM runs LIMIT 1", ())
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} cannot be read as an MLflow store: {error}") from error
        return store

    def runs_with_tag(
        self, key: str, values: Sequence[str], experiment_id: str | None = None, *, params: bool = False
    ) -> list[RunRecord]:
        rows: list[tuple[Any, ...]] = []
        where = "AND r.experiment_id = ?" if experiment_id is not None else ""
        for marks, chunk in _chunks(values):
            sql = (
                "SELECT r.run_uuid, r.experiment_id, r.name, r.status, r.start_time, r.artifact_uri FROM tags t "
                "JOIN runs r ON r.run_uuid = t.run_uuid JOIN experiments e ON e.experiment_id = r.experiment_id "
                "WHERE r.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active' "
                f"AND t.key = ? AND t.value IN ({marks}) {where}"
            )
            rows += self._query(sql, (key, *chunk, *([experiment_id] if experiment_id is not None else [])))
        rows.sort(key=lambda row: (row[4] or 0, row[0]), reverse=True)
        run_ids = [row[0] for row in rows]
        tags = self._pairs("tags", run_ids)
        settings = self._pairs("params", run_ids) if params else {}
        return [
            RunRecord(
                run_id=row[0],
                experiment_id=str(row[1]),
                name=row[2] or "",
                status=row[3],
                start_time=(row[4] or 0) / 1000.0,
                artifact_uri=row[5] or "",
                tags=tags.get(row[0], {}),
                params=settings.get(row[0], {}),
            )
            for row in rows
        ]

    def metrics(self, run_ids: Sequence[str], keys: Sequence[str] | None = None) -> pd.DataFrame:
        rows: list[tuple[Any, ...]] = []
        only = f"AND key IN ({','.join('?' * len(keys))})" if keys is not None else ""
        for marks, chunk in _chunks(run_ids):
            sql = (
                "SELECT run_uuid, key, step, CASE WHEN is_nan THEN NULL ELSE value END, timestamp FROM metrics "
                f"WHERE run_uuid IN ({marks}) {only}"
            )
            rows += self._query(sql, (*chunk, *(keys or ())))
        frame = pd.DataFrame(rows, columns=list(METRIC_COLUMNS))
        return frame.assign(value=finite_or_nan(frame["value"]))

    def read_text(self, run: RunRecord, path: str) -> str | None:
        file = local_artifact(run.artifact_uri, path)
        if file is None:
            return download_text(self.uri, run.run_id, path)
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def files(self, run: RunRecord, folder: str) -> list[Path]:
        place = local_artifact(run.artifact_uri, folder)
        return download_files(self.uri, run.run_id, folder) if place is None else files_in(place)

    def _pairs(self, table: str, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        collected: dict[str, dict[str, str]] = defaultdict(dict)
        for marks, chunk in _chunks(run_ids):
            for run_id, key, value in self._query(
                f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid IN ({marks})", tuple(chunk)
            ):
                collected[run_id][key] = value or ""
        return collected

    def _query(self, sql: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        uri = f"file:{quote(str(self.path.resolve()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=20.0)) as connection:
            return connection.execute(sql, arguments).fetchall()


def _chunks(values: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        yield ",".join("?" * len(chunk)), chunk
