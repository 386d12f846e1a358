"""Reads an MLflow store through the public client: servers, and databases other than SQLite.

The client has no bulk call for metric histories, so there is one call per run and metric, several in parallel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dashboards.store.store import METRIC_COLUMNS, RunRecord, download_files, download_text, finite_or_nan

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_WORKERS = 8
_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStore:
    """Implements :class:`dashboards.store.store.Store`."""

    uri: str
    client: MlflowClient

    @staticmethod
    def open(uri: str) -> ClientStore:
        """Connect; ValueError in one sentence when the store does not answer."""
        # Read by mlflow when it connects; its own defaults try a server that is down for four minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
        except (MlflowException, OSError) as error:
            reason = str(error).strip().partition("\n")[0].partition(" failed with exception ")[0][:200]
            raise ValueError(f"the MLflow store at {uri} does not answer: {reason}") from error
        return ClientStore(uri=uri, client=client)

    def runs_with_tag(
        self, key: str, values: Sequence[str], experiment_id: str | None = None, *, params: bool = False
    ) -> list[RunRecord]:
        experiments = [experiment_id] if experiment_id is not None else self._experiments()
        records: list[RunRecord] = []
        # A filter has no "IN" for tags and no escape for quotes: those cases fetch "has the tag" and choose here.
        single = len(values) == 1 and not set(values[0]) & set("'\"\\")
        clause = f"tags.`{key}` = '{values[0]}'" if single else f"tags.`{key}` LIKE '%'"
        accepted = set(values)
        token: str | None = None
        while experiments:
            page = self.client.search_runs(experiments, clause, max_results=_PAGE, page_token=token)
            records += [_record(run) for run in page if run.data.tags.get(key) in accepted]
            token = page.token
            if not token:
                break
        return sorted(records, key=lambda record: (record.start_time, record.run_id), reverse=True)

    def metrics(self, run_ids: Sequence[str], keys: Sequence[str] | None = None) -> pd.DataFrame:
        pairs = [
            (run_id, key)
            for run_id in run_ids
            for key in self.client.get_run(run_id).data.metrics
            if keys is None or key in keys
        ]
        with ThreadPoolExecutor(_WORKERS) as pool:
            histories = pool.map(lambda pair: self.client.get_metric_history(*pair), pairs)
            rows = [
                (run_id, key, point.step, point.value, point.timestamp)
                for (run_id, key), history in zip(pairs, histories, strict=True)
                for point in history
            ]
        frame = pd.DataFrame(rows, columns=list(METRIC_COLUMNS))
        return frame.assign(value=finite_or_nan(frame["value"]))

    def read_text(self, run: RunRecord, path: str) -> str | None:
        return download_text(self.uri, run.run_id, path)

    def files(self, run: RunRecord, folder: str) -> list[Path]:
        return download_files(self.uri, run.run_id, folder)

    def _experiments(self) -> list[str]:
        return [str(experiment.experiment_id) for experiment in self.client.search_experiments(max_results=_PAGE)]


def _record(run: Any) -> RunRecord:
    return RunRecord(
        run_id=run.info.run_id,
        experiment_id=str(run.info.experiment_id),
        name=run.info.run_name or "",
        status=run.info.status,
        start_time=(run.info.start_time or 0) / 1000.0,
        artifact_uri=run.info.artifact_uri or "",
        tags=dict(run.data.tags),
        params=dict(run.data.params),
    )
