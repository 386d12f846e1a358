"""The MLflow store of a sweep: checks that it can be used, creates a new one, and says what to do with a broken one.

A new SQLite store is created under a temporary name and renamed, so that it is complete or absent. mlflow is imported
late, because that takes seconds.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.contract.errors import reason
from trainer.contract.files import alone, make_folder, persist, room_for
from trainer.contract.settings import ConfigError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PATIENCE_S = 5.0
"""How long a tracking server may take to answer before it counts as absent."""

SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql", "databricks", "sqlite")

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Read by mlflow, set where the user has not. Trying again is ours: its own takes minutes, and closing would wait."""

MOVE_AWAY = "move it away and start the same command again: `python -m sweeps sync STUDY` fills a new one from the runs"


def database_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]).absolute() if uri.startswith(SQLITE) else None


def require_answer(uri: str) -> None:
    """Raise :class:`ConfigError` unless something at ``uri`` can take runs. Quick, and writes nothing."""
    database = database_file(uri)
    if uri.startswith(("http://", "https://")):
        _require_server(uri)
    elif database is not None:
        _require_writable(database, uri)
        _require_whole(database, uri)
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


def connect(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client and the id of ``experiment``; store and experiment are made where they are missing.

    Raises :class:`ConfigError` with what is wrong and what to do.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for name in ("alembic", "mlflow"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    with readable_errors(uri), _new_store(uri) as database:
        client = MlflowClient(tracking_uri=uri)
        existing = client.get_experiment_by_name(experiment)
        if existing is not None:
            return client, str(existing.experiment_id)
        location = (database.parent / "mlartifacts").as_uri() if database else None
        try:
            return client, str(client.create_experiment(experiment, artifact_location=location))
        except MlflowException:  # somebody else may have made it meanwhile
            existing = client.get_experiment_by_name(experiment)
            if existing is None:
                raise
            return client, str(existing.experiment_id)


@contextmanager
def readable_errors(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises within the block into a :class:`ConfigError` that names store and cause."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # the boundary: drivers raise whatever they like
        raise ConfigError(f"tracking.uri={uri!r} cannot be used: {reason(error)}") from error


@contextmanager
def _new_store(uri: str) -> Iterator[Path | None]:
    """Hold the lock beside a SQLite store, whose file is yielded once it is whole: who creates tables together with
    others, or is killed amid it, destroys them."""
    database = database_file(uri)
    if database is None:
        yield None
        return
    make_folder(database.parent)
    with alone(database.with_name(f"{database.name}.lock")):
        if _tables(database) == set():
            with room_for(database):
                _make(database)
        _require_whole(database, uri, _latest())
        yield database


def _make(database: Path) -> None:
    """A store with its tables: beside its place, then renamed. The lock is ours, so what lies there is of the dead."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    growing = database.with_name(f".{database.name}.making")
    leftovers = [growing, *(growing.with_name(growing.name + suffix) for suffix in ("-journal", "-wal", "-shm"))]
    try:
        for path in leftovers:
            path.unlink(missing_ok=True)
        engine = create_sqlalchemy_engine(f"{SQLITE}{growing}")
        _initialize_tables(engine)
        engine.dispose()
        persist(growing)
        growing.rename(database)
        persist(database.parent)
    finally:
        for path in leftovers:
            path.unlink(missing_ok=True)


def _latest() -> str:
    """The schema that this version of MLflow has."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


def _tables(database: Path) -> set[str] | None:
    """Names of the tables in a SQLite file, none where there is no file; None for a file that is no database."""
    if not database.exists() or database.stat().st_size == 0:
        return set()
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            tables = connection.execute("select name from sqlite_master where type = 'table'")
            return {str(name) for (name,) in tables}
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return {"runs", "experiments"}  # somebody writes to it, so it is one
        return None


def _require_whole(database: Path, uri: str, latest: str | None = None) -> None:
    """Raise :class:`ConfigError` for a file that is no MLflow store, or not a whole one of this version."""
    tables = _tables(database)
    if tables is None:
        raise ConfigError(f"tracking.uri={uri!r} is no SQLite database, or a damaged one: {MOVE_AWAY}")
    if tables and not tables & {"runs", "experiments", "alembic_version"}:
        raise ConfigError(
            f"tracking.uri={uri!r} is a database of something else (tables {', '.join(sorted(tables)[:3])}): "
            "choose another file"
        )
    if not tables or latest is None:
        return
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        schema = _first(connection, "select version_num from alembic_version")
        runs = _first(connection, "select count(*) from runs")
    if schema == latest:
        return
    if not runs:
        raise ConfigError(f"tracking.uri={uri!r} is half made and holds no run: {MOVE_AWAY}")
    raise ConfigError(
        f"tracking.uri={uri!r} was made by another version of MLflow (schema {schema}, here {latest}): copy the file, "
        f"then run `mlflow db upgrade {uri}`, or choose another file"
    )


def _first(connection: sqlite3.Connection, query: str) -> object:
    try:
        row = connection.execute(query).fetchone()
    except sqlite3.DatabaseError:
        return None
    return row[0] if row else None


def _require_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PATIENCE_S):
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return  # it answers; a proxy may guard or lack this path
        failure: Exception = error
        why: object = f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        failure, why = error, getattr(error, "reason", error)
    raise ConfigError(
        f"tracking.uri={uri!r} does not answer ({why}): start the server, mend the address, or use tracking=none"
    ) from failure


def _require_writable(path: Path, uri: str) -> None:
    existing = next(parent for parent in [path, *path.parents] if parent.exists())
    if not os.access(existing, os.W_OK) or (existing != path and not existing.is_dir()) or path.is_dir():
        raise ConfigError(
            f"tracking.uri={uri!r} cannot be written: {existing} does not allow it; "
            "choose another file, or use tracking=none"
        )
