"""The MLflow side of a sweep: is the store there, its tables and experiment, and the run that stands for the sweep.

Called by :mod:`sweeps.launch`. The only file of ``sweeps`` that imports mlflow, and late: that takes seconds. The
points of the cells are the trainer's business.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import ConfigError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PATIENCE_S = 5.0
"""How long a tracking server may take to answer before it counts as absent."""
SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql", "databricks", "sqlite")
STATUS = {"COMPLETED": "FINISHED", "FAILED": "FAILED", "STOPPED": "KILLED"}


def absolute(uri: str | None) -> str | None:
    """``uri`` with the path of a SQLite file made absolute: jobs start in other folders."""
    if uri is None or not uri.startswith(SQLITE):
        return uri
    return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).expanduser().absolute()}"


def require_answer(uri: str) -> None:
    """Raise :class:`ConfigError` unless something at ``uri`` can take runs. Quick, and writes nothing."""
    if uri.startswith(("http://", "https://")):
        _require_server(uri)
    elif uri.startswith(SQLITE):
        _require_writable(Path(uri.removeprefix(SQLITE)), uri)
    elif re.match(r"[a-z+]+://", uri) and not uri.startswith(("file:", *DATABASES)):
        raise ConfigError(
            f"tracking.uri={uri!r} is no address that MLflow knows: "
            "use sqlite:///FILE, http://HOST:PORT, or tracking=none"
        )
    elif uri.startswith("file:") or "://" not in uri:
        raise ConfigError(
            f"tracking.uri={uri!r} is a folder, which MLflow no longer writes to: "
            "use sqlite:///FILE, a server, or tracking=none"
        )


def _require_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PATIENCE_S):
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return  # it answers; a proxy may guard or lack this path
        reason: object = f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
    raise ConfigError(
        f"tracking.uri={uri!r} does not answer ({reason}): start the server, mend the address, or use tracking=none"
    )


def _require_writable(path: Path, uri: str) -> None:
    existing = next(parent for parent in [path, *path.parents] if parent.exists())
    if not os.access(existing, os.W_OK) or (existing != path and not existing.is_dir()):
        raise ConfigError(
            f"tracking.uri={uri!r} cannot be written: {existing} does not allow it; "
            "choose another file, or use tracking=none"
        )


class Tracker:
    """One MLflow store. Creating this makes the database and the experiment, which racing jobs would tear."""

    def __init__(self, uri: str, experiment: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        for name in ("alembic", "mlflow"):  # after the import, which sets levels of its own
            logging.getLogger(name).setLevel(logging.ERROR)
        self.uri = uri
        with _alone(uri) as folder:
            try:
                self._client: MlflowClient = MlflowClient(tracking_uri=uri)
                found = self._client.get_experiment_by_name(experiment)
                location = (folder / "mlartifacts").as_uri() if folder else None
                self._experiment = (
                    found.experiment_id
                    if found
                    else self._client.create_experiment(experiment, artifact_location=location)
                )
            except MlflowException as error:
                raise ConfigError(f"tracking.uri={uri!r} cannot be used: {_first_line(error)}") from error
            except Exception as error:  # the boundary: drivers raise whatever they like
                raise ConfigError(
                    f"tracking.uri={uri!r} cannot be used ({type(error).__name__}): {_first_line(error)}"
                ) from error

    def open_sweep(self, document: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The run that stands for the study, the one it had before or a new one; ``sweep.json`` is its artifact."""
        study = str(document["study"])
        known = self._sweep(study)
        if known is not None:
            run_id = str(known.info.run_id)
            self._client.update_run(run_id, status="RUNNING")
        else:
            run_id = str(
                self._client.create_run(
                    self._experiment, run_name=study, tags={"kind": "sweep", "study": study}
                ).info.run_id
            )
        for key, value in tags.items():
            self._client.set_tag(run_id, key, value)
        self._client.log_text(run_id, json.dumps(document, indent=1), "sweep.json")
        return run_id

    def _sweep(self, study: str) -> Any:
        """The newest run that stands for the study, or None."""
        found = self._client.search_runs(
            [self._experiment],
            f"tags.kind = 'sweep' and tags.study = '{study}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return found[0] if found else None

    def close_abandoned(self, study: str, state: str) -> None:
        """End the sweep's run if its launcher died and left it RUNNING."""
        known = self._sweep(study)
        if known is not None and known.info.status == "RUNNING":
            self.close_sweep(str(known.info.run_id), state)

    def close_sweep(self, run_id: str, state: str) -> None:
        """End the sweep's run: COMPLETED, FAILED or STOPPED."""
        self._client.set_tag(run_id, "state", state)
        self._client.set_terminated(run_id, STATUS[state], end_time=int(1000 * time.time()))


@contextmanager
def _alone(uri: str) -> Iterator[Path | None]:
    """Hold the lock that trainers take too while the tables of a SQLite store are made; yields the store's folder."""
    if not uri.startswith(SQLITE):
        yield None
        return
    path = Path(uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield path.parent


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
