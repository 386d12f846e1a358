"""The store behind a name: a SQLite file is read with SQL, any other store through the MLflow client, the folder of one
run and a record of a study without MLflow.

SQL is 50 times faster than one call per metric and needs no import of MLflow.
"""

from __future__ import annotations

from pathlib import Path

from dashboards.store.folder import FolderStore, is_run_folder
from dashboards.store.record import RecordStore, is_record
from dashboards.store.store import Store


def open_store(uri: str) -> Store:
    """The store behind ``uri``, which may also be the folder of a run or of a record. Raises ValueError when a SQLite
    file does not exist or is no MLflow store."""
    if is_run_folder(uri):
        return FolderStore.open(Path(uri))
    if is_record(uri):
        return RecordStore.open(Path(uri))
    if uri.startswith("sqlite:"):
        from dashboards.store.sqlite import SqliteStore

        return SqliteStore.open(uri)
    from dashboards.store.client import ClientStore

    return ClientStore.open(uri)
