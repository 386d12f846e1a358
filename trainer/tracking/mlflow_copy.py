"""The MLflow copy of a run folder: a run, its tags, parameters, points and tables. With
``mlflow_model.py`` and ``contract/store.py`` the only file that imports mlflow.

Reads the run folder's files and nothing else, so that a copy can be made at any time. Must not import mlflow before
it has something to copy.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.contract.files import alone, write_atomic
from trainer.contract.liveness import is_alive
from trainer.contract.records import DamagedRecord, read_records
from trainer.contract.settings import ConfigError
from trainer.contract.status import Status
from trainer.contract.store import connect
from trainer.storage.record import RunFolder
from trainer.storage.rollouts import FOLDER, kept_steps
from trainer.tracking.mlflow_tags import TAG_LENGTH, mlflow_name, parameters, tags

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STATUS = {"RUNNING": "RUNNING", "COMPLETED": "FINISHED", "FAILED": "FAILED"} | dict.fromkeys(
    ("PREEMPTED", "CANCELLED", "PRUNED", "LOST"), "KILLED"
)
"""MLflow's word for a state of ``status.json``. The exact state is in the tag ``state``."""

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "PRUNED")
"""States in which the whole record is copied; in the others only what a checkpoint has made durable."""

FILES = ("run.yaml", "metrics.json", "provenance.json", "diff.patch")
"""Files of the run folder that are copied as they are, when they exist."""

METRICS_A_CALL, PARAMS_A_CALL = 1000, 100
"""What MLflow takes at once."""


def sync(run_dir: str | Path, uri: str | None = None) -> bool:
    """Bring MLflow into line with the files of ``run_dir``; a second call adds nothing.

    ``uri`` takes the place of ``tracking.uri``. Returns False for a run that has not started or that is alive (its own
    mirror is at work). A run whose process has gone is given the end that ``status.json`` states, LOST if it states
    none. Raises what MLflow raises.
    """
    folder = RunFolder(run_dir)
    uri = uri or store_of(folder)
    config = folder.config()
    if not _ended(folder):
        return False
    with one_copier(folder):
        if not _ended(folder):  # somebody started it while another copier had it
            return False
        MlflowCopy(folder, config, uri).finish(_durable_step(folder))
    return True


def store_of(folder: RunFolder) -> str:
    """The tracking URI of a run. Raises :class:`ConfigError` for a run that has none."""
    uri = (folder.config().get("tracking") or {}).get("uri")
    if not uri:
        raise ConfigError(
            f"tracking.uri of {folder.config_file} is null, so nothing can be filled: name a tracking URI"
        )
    return str(uri)


def log_evaluation(folder: RunFolder, metrics: Mapping[str, float], step: int) -> bool:
    """Put ``eval/...`` of an evaluation after the training beside the run's points, as ``evaluate/...`` at ``step``.

    False for a run without a tracking URI or without an MLflow run. Raises what MLflow raises.
    """
    tracking = folder.config().get("tracking") or {}
    run_id = folder.read_mirror().get("run_id")
    if not tracking.get("uri") or not run_id:
        return False
    from mlflow.entities import Metric

    client, _ = connect(str(tracking["uri"]), str(tracking.get("experiment") or "rlvr-entropy"))
    timestamp_ms = int(1000 * time.time())
    by_name = {mlflow_name(f"evaluate/{key.removeprefix('eval/')}"): value for key, value in metrics.items()}
    points = [Metric(key, value, timestamp_ms, step) for key, value in by_name.items()]
    for start in range(0, len(points), METRICS_A_CALL):
        client.log_batch(str(run_id), metrics=points[start : start + METRICS_A_CALL])
    return True


@contextmanager
def one_copier(folder: RunFolder) -> Iterator[None]:
    """Wait until no other process copies this folder: two at once would make two MLflow runs of it, or end it twice."""
    with alone(folder.path / ".mirror.lock"):
        yield


def _ended(folder: RunFolder) -> bool:
    """Whether the run began and nobody works on it any more, so that nobody else is going to copy it."""
    status = folder.read_status()
    if status is None or status.state not in STATUS:
        return False
    return status.state != "RUNNING" or is_alive(folder.path, status) is False


def _durable_step(folder: RunFolder) -> int:
    """The last step that is never computed again; the checkpoint ``step-000020`` was made after steps 0 to 19."""
    steps = [path.parent.name.removeprefix("step-") for path in folder.checkpoints.glob("step-*/manifest.json")]
    return max((int(step) for step in steps if step.isdigit()), default=0) - 1


class MlflowCopy:
    """One run folder and its MLflow run. Methods may raise at any point; calling them again completes the work.

    MLflow drops a point it already has (name, step, time and value), hence sending twice is harmless. A step that is
    computed again has new times, hence nothing is sent that could be. Where that happened all the same (a damaged
    checkpoint, a failed run that is tried again), ``mirror.json`` names a point that the record no longer has, and the
    MLflow run is built anew.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], uri: str | None) -> None:
        self.folder, self.config, self.uri = folder, config, uri
        self.complete = False
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._offsets, self._reached = (0, 0), -1
        self._tables: dict[str, int] = {}

    def advance(self, until: int | None) -> None:
        """Send steps up to ``until`` (None: all) that were not sent yet; opens the MLflow run at first."""
        client = self._client or self._open()
        metrics, end = read_records(self.folder.metrics, offset=self._offsets[0], until=until)
        if metrics:
            last = int(metrics[-1]["step"])
            timings, timings_end = read_records(self.folder.timings, offset=self._offsets[1], until=last)
            times = {record["step"]: record["time"] for record in timings}
            # Noted before it is sent: should this process die in between, the note errs towards building anew.
            self._note(step=last, time=_time(times, last))
            self._send_points(client, [*timings, *metrics], times)
            self._offsets, self._reached = (end, timings_end), last
        for path in (self.folder.samples, self.folder.reliability, self.folder.contamination):
            self._send_table(client, path, until)

    def reopen(self) -> None:
        """Look for the MLflow run again before the next points: after a failure it may be gone."""
        self._client = None

    def finish(self, durable: int) -> None:
        """Send what is left and end the MLflow run as ``status.json`` says; RUNNING there, without an end, is LOST."""
        status = self.folder.read_status() or Status(state="LOST", time=time.time())
        state = "LOST" if status.state == "RUNNING" else status.state
        until = None if state in FINAL else durable
        self.advance(until)
        if state == "COMPLETED" and self._reached < status.step - 1:
            raise DamagedRecord(
                f"{self.folder.metrics} ends at step {self._reached}, but its run is complete with {status.step} "
                "steps: restore it, or move the run folder away and start the same command again"
            )
        assert self._client is not None
        # Only now: every token is a row of numbers, too much to send anew with each checkpoint.
        self._send_table(self._client, self.folder.tokens, until)
        self._send_rollouts(self._client, until)
        self._client.set_tag(self._run_id, "state", state)
        self._client.set_tag(self._run_id, "message", (status.message or "")[:TAG_LENGTH])
        self._client.set_terminated(self._run_id, STATUS[state], end_time=int(1000 * status.time))
        self._note(ended=state)
        self.complete = True

    def _open(self) -> MlflowClient:
        """Connect, then find or create the MLflow run and give it its tags, parameters and files."""
        assert self.uri is not None
        client, experiment_id = connect(self.uri, str(self.config["tracking"].get("experiment") or "rlvr-entropy"))
        timings, _ = read_records(self.folder.timings)
        times = {record["step"]: record["time"] for record in timings}
        note = self.folder.read_mirror()
        rewound = "step" in note and _time(times, note["step"]) != note["time"]
        if rewound:
            for run in _find(client, experiment_id, note["token"]):
                client.delete_run(run.info.run_id)
        if rewound or "token" not in note:
            note = {"token": uuid.uuid4().hex}
            write_atomic(self.folder.mirror, json.dumps(note) + "\n")
        runs = _find(client, experiment_id, note["token"])
        if runs:
            run = runs[0]
        else:
            start = int(1000 * min(times.values(), default=time.time()))
            run = client.create_run(experiment_id, start_time=start, tags={"record": note["token"]} | tags(self.config))
        if run.info.run_id != self._run_id:  # not the run that was open before: it gets everything
            self._run_id, self._offsets, self._tables = run.info.run_id, (0, 0), {}
        self._note()
        self._describe(client, known=run.data.params)
        self._client = client
        return client

    def _describe(self, client: MlflowClient, known: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        client.update_run(self._run_id, status="RUNNING")
        labels = [RunTag(key, value) for key, value in (tags(self.config) | {"state": "RUNNING"}).items()]
        client.log_batch(self._run_id, tags=labels)
        params = [Param(key, value) for key, value in parameters(self.config) if key not in known]
        for start in range(0, len(params), PARAMS_A_CALL):
            client.log_batch(self._run_id, params=params[start : start + PARAMS_A_CALL])
        for name in FILES:
            if (self.folder.path / name).is_file():
                client.log_artifact(self._run_id, str(self.folder.path / name))

    def _note(self, **facts: float | str) -> None:
        """Keep in ``mirror.json``: ``step`` and ``time`` of the last point, and ``ended`` once everything is there."""
        note = self.folder.read_mirror() | {"run_id": self._run_id, "ended": None} | facts
        write_atomic(self.folder.mirror, json.dumps(note) + "\n")

    def _send_points(self, client: MlflowClient, records: list[dict[str, Any]], times: Mapping[int, float]) -> None:
        """Points in batches; a non-finite value is NaN in MLflow (``metrics.jsonl`` says which kind)."""
        from mlflow.entities import Metric

        points = [
            Metric(
                mlflow_name(name),
                math.nan if value is None else value,
                int(1000 * _time(times, record["step"])),
                record["step"],
            )
            for record in records
            for name, value in record["metrics"].items()
        ]
        for start in range(0, len(points), METRICS_A_CALL):
            client.log_batch(self._run_id, metrics=points[start : start + METRICS_A_CALL])

    def _send_table(self, client: MlflowClient, path: Path, until: int | None) -> None:
        """``samples.jsonl`` as the table ``samples.json`` that the MLflow UI shows; likewise the other
        tables."""
        rows, end = read_records(path, until=until)
        if not rows or self._tables.get(path.name) == end:
            return
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = {"columns": columns, "data": [[row.get(name) for name in columns] for row in rows]}
        client.log_text(self._run_id, json.dumps(table, allow_nan=False), f"{path.stem}.json")
        self._tables[path.name] = end
        listing = json.dumps([{"path": f"{name.removesuffix('l')}", "type": "table"} for name in sorted(self._tables)])
        client.set_tag(self._run_id, "mlflow.loggedArtifacts", listing)

    def _send_rollouts(self, client: MlflowClient, until: int | None) -> None:
        """``tokens.jsonl`` as compressed columns, for pandas: ``rollouts.parquet``; and the steps kept in
        ``rollouts/``."""
        for kept in kept_steps(self.folder.path, until).values():
            client.log_artifact(self._run_id, str(kept), FOLDER)
        rows, _ = read_records(self.folder.tokens, until=until)
        if not rows:
            return
        import pyarrow
        from pyarrow import parquet

        with tempfile.TemporaryDirectory() as temporary:
            path = f"{temporary}/rollouts.parquet"
            parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="zstd")
            client.log_artifact(self._run_id, path)


def _time(times: Mapping[int, float], step: int) -> float:
    """Unix seconds of ``step``; without a record the step itself, so that a replay agrees with the first try."""
    return times.get(step, float(step))


def _find(client: MlflowClient, experiment_id: str, token: str) -> list[Any]:
    return list(client.search_runs([experiment_id], filter_string=f"tags.record = '{token}'", max_results=2))
