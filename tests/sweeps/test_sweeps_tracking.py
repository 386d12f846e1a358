"""The MLflow side of a sweep, against a real SQLite store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from sweeps.after.finish import close_abandoned
from sweeps.grid.cells import Cell
from sweeps.grid.sweep import Sweep
from sweeps.tracking import Tracker, absolute
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError
from trainer.contract.status import write_status
from trainer.contract.store import require_answer

DOCUMENT = {"study": "s", "cells": []}


def test_a_sqlite_path_becomes_absolute_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///outputs/mlflow.db") == f"sqlite:///{tmp_path}/outputs/mlflow.db"
    assert absolute("http://host:5000") == "http://host:5000"
    assert absolute(None) is None


@pytest.fixture
def server() -> object:
    """Answers every request with the status its path ends on."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.split("/")[1]))
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    running = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


def test_a_server_answers_or_is_refused(server: str) -> None:
    require_answer(f"{server}/200")
    require_answer(f"{server}/403")  # guarded, but there
    with pytest.raises(ConfigError, match=r"does not answer \(HTTP 502\)"):
        require_answer(f"{server}/502")


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        require_answer(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_asking_writes_nothing(tmp_path: Path) -> None:
    require_answer(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_has_one_run_however_often_it_is_started(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/out put/mlflow.db"
    first = Tracker(uri, "e").open_sweep(DOCUMENT, {"factor": "f"})
    tracker = Tracker(uri, "e")
    second = tracker.open_sweep({**DOCUMENT, "cells": [1]}, {"factor": "f"})
    tracker.close_sweep(second, "COMPLETED")
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(first)
    assert first == second
    assert (run.info.status, run.data.tags["kind"], run.data.tags["study"], run.data.tags["state"]) == (
        "FINISHED",
        "sweep",
        "s",
        "COMPLETED",
    )
    assert [path.read_text() for path in (tmp_path / "out put" / "mlartifacts").rglob("sweep.json")] == [
        '{\n "study": "s",\n "cells": [\n  1\n ]\n}'
    ]


def test_launchers_that_meet_at_a_fresh_store_do_not_tear_it(tmp_path: Path) -> None:
    tracker = f"Tracker({f'sqlite:///{tmp_path}/mlflow.db'!r}, 'e')"
    code = f"from sweeps.tracking import Tracker; {tracker}.open_sweep({{'study': 's'}}, {{}})"
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in both] == [("", 0), ("", 0)]


def test_a_database_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, " * 100)
    with pytest.raises(
        ConfigError, match=r"tracking\.uri=.* is no SQLite database, or a damaged one: move it away"
    ) as refusal:
        Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("state", "shown", "status"),
    [("COMPLETED", "COMPLETED", "FINISHED"), ("FAILED", "FAILED", "FAILED"), ("CANCELLED", "STOPPED", "KILLED")],
)
def test_a_sweep_whose_launcher_died_is_ended_once_nothing_runs(
    make_cells: Callable[..., list[Cell]], tmp_path: Path, state: str, shown: str, status: str
) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (cell,) = make_cells(["seed=1"])
    cell = replace(cell, config={**cell.config, "tracking": cell.config["tracking"] | {"uri": uri}})
    sweep = Sweep(name="s", command="", output=tmp_path, cells=(cell,))
    run_dir = sweep.run_dir(cell)
    run_dir.mkdir(parents=True)
    run_id = Tracker(uri, cell.config["tracking"]["experiment"]).open_sweep(DOCUMENT, {})
    client = MlflowClient(tracking_uri=uri)
    write_status(run_dir, "RUNNING", steps=3)
    close_abandoned(sweep)
    assert client.get_run(run_id).info.status == "RUNNING", "a cell is under way"
    write_status(run_dir, state, steps=3)
    for _ in range(2):
        close_abandoned(sweep)
        run = client.get_run(run_id)
        assert (run.info.status, run.data.tags["state"]) == (status, shown)
