"""Addresses of runs in the MLflow UI."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from dashboards.store.store import RunRecord
from dashboards.sweep.load import SweepData

LOCAL_UI = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` serves a store on this machine unless it is told otherwise."""


def ui_address(uri: str, ui: str | None = None) -> str:
    """Where the UI of a store is: ``ui``, or the server itself, or the address of ``mlflow ui``. ValueError for an
    address that is none."""
    address = ui or (shown_uri(uri) if urlsplit(uri).scheme in ("http", "https") else LOCAL_UI)
    if urlsplit(address).scheme not in ("http", "https"):
        raise ValueError(f"the address of the MLflow UI begins with http:// or https://, not {address!r}")
    return address.rstrip("/")


def run_link(address: str, run: RunRecord | None) -> str | None:
    """The page of a run; None for a run that is not in MLflow."""
    if run is None or not (run.experiment_id.isalnum() and run.run_id.isalnum()):
        return None
    return f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}"


def run_links(sweep: SweepData, address: str) -> dict[str, str]:
    """The page of every run of a sweep that is in MLflow, by signature."""
    links = {signature: run_link(address, run) for signature, run in sweep.runs.items()}
    return {signature: link for signature, link in links.items() if link}


def shown_uri(uri: str) -> str:
    """The tracking URI without user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
