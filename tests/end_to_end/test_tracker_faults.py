"""MLflow slow, broken, killed or crowded: the run goes on, and the copy ends up equal to the record."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from copiers import Copier, copied, follow_to_the_end, record, recorded, run_folder
from mlflow_server import Line, Server
from runs import run_config, steps, write_run
from waiting import wait_for

from tests.end_to_end.conftest import ENVIRONMENT
from trainer.contract.paths import ROOT
from trainer.contract.status import write_status
from trainer.contract.store import ENVIRONMENT as MLFLOW
from trainer.storage.record import RunFolder
from trainer.tracking.mlflow_copy import sync

pytestmark = pytest.mark.slow

STEPS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("it's a server ü"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def line(server: Server) -> Iterator[Line]:
    opened = Line(server.port)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what the copy sets reaches other tests, and a busy machine is no reason to give up."""
    monkeypatch.setattr("trainer.tracking.mirror.LINGER_S", 300.0)
    for name, value in MLFLOW.items():
        monkeypatch.setenv(name, value)


def configuration(uri: str, experiment: str, **tracking: Any) -> dict[str, Any]:
    changes = {"uri": uri, "experiment": experiment, "flush_every_s": 0.02} | tracking
    return run_config({f"tracking.{name}": value for name, value in changes.items()})


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(uri: str, experiment: str) -> list[Any]:
    found = client(uri).get_experiment_by_name(experiment)
    return list(client(uri).search_runs([found.experiment_id])) if found else []


def num_points(store: Path) -> int:
    with sqlite3.connect(store) as connection:
        return int(connection.execute("select count(*) from metrics").fetchone()[0])


def equal_after_syncing_twice(folder: RunFolder, uri: str, experiment: str, store: Path) -> None:
    """The copy equals the record, and neither the first nor the second sync changes a point."""
    before = num_points(store)
    for _ in range(2):
        assert sync(folder.path, uri)
        (run,) = runs(uri, experiment)
        assert copied(client(uri), run.info.run_id) == recorded(folder)
        assert num_points(store) == before
    assert run.info.status == "FINISHED"


def test_the_command_of_the_readme_listens_on_this_machine_only(server: Server) -> None:
    assert server.addresses() == {"0100007F"}


@pytest.mark.parametrize("fault", ["500", "drop", "hang", "slow", "garbage", "lost answer"])
def test_a_fault_in_mid_run_leaves_the_copy_late_and_whole(
    fault: str, server: Server, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "hang":
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    experiment = f"mid {fault}"
    folder = run_folder(tmp_path / "run", configuration(line.uri, experiment))
    folder.write_status("RUNNING", 0, STEPS)
    copier = Copier(folder)
    record(folder, range(6))
    copier.tell(5)
    wait_for(lambda: any("policy/entropy" in run.data.metrics for run in runs(server.uri, experiment)))
    line.fault = fault
    record(folder, range(6, STEPS))
    copier.tell(STEPS - 1)
    wait_for(lambda: line.disturbed >= 3)
    line.fault = None
    folder.write_status("COMPLETED", STEPS, STEPS)
    assert copier.close() == 0
    equal_after_syncing_twice(folder, line.uri, experiment, server.folder / "mlflow.db")


@pytest.mark.parametrize("fault", ["500", "drop", "garbage", "lost answer"])
def test_a_fault_for_the_whole_run_is_made_up_for_by_sync(
    fault: str, server: Server, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.tracking.mirror.LINGER_S", 0.0)
    experiment = f"whole {fault}"
    folder = run_folder(tmp_path / "run", configuration(line.uri, experiment))
    line.fault = fault
    copier = Copier(folder)
    record(folder, range(STEPS))
    copier.tell(STEPS - 1)
    wait_for(lambda: line.disturbed >= 2)
    folder.write_status("COMPLETED", STEPS, STEPS)
    assert copier.close() == 1, "it said that something is missing"
    line.fault = None
    assert sync(folder.path)
    equal_after_syncing_twice(folder, line.uri, experiment, server.folder / "mlflow.db")


def test_a_server_killed_and_started_again_in_mid_run(server: Server, tmp_path: Path) -> None:
    """A whole training run with its own copier; the server is away for at least ten of its steps."""
    changes = {"tracking.uri": server.uri, "tracking.experiment": "restart", "tracking.flush_every_s": 0.1}
    folder = write_run(tmp_path / 'it\'s a "run" ü', changes | {"steps": 40, "evaluation.every": 0})
    command = [sys.executable, "-m", "trainer", str(folder.path)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: any(run.data.metrics for run in runs(server.uri, "restart")))
        server.kill()
        reached = len(steps(folder))
        wait_for(lambda: len(steps(folder)) >= min(reached + 10, 40))
        server.start()
        assert process.wait(120) == 0
    finally:
        process.kill()
    assert folder.read_status().state == "COMPLETED" and steps(folder)[:40] == list(range(40))
    (run,) = runs(server.uri, "restart")
    assert run.info.status == "FINISHED", "the run's own copier caught up"
    equal_after_syncing_twice(folder, server.uri, "restart", server.folder / "mlflow.db")


def test_sweeps_sync_brings_everything_and_then_nothing(server: Server, tmp_path: Path) -> None:
    """A sweep whose cells ended well, badly, and not at all: killed, with no copier left to say so."""
    output = tmp_path / "out put's"
    ends = {"COMPLETED": "FINISHED", "FAILED": "FAILED", "RUNNING": "KILLED"}
    cells, folders = [], {}
    for index, state in enumerate(ends):
        config = configuration(server.uri, "cli") | {"seed": index, "launcher": {"trainer": ["-m", "trainer"]}}
        folder = folders[state] = run_folder(output / "runs" / f"{index:012d}", config | {"output": str(output)})
        record(folder, range(STEPS))
        folder.write_status(state, STEPS, STEPS)
        names = {"level": "a", "label": "a", "level_index": 0, "overrides": []}
        cells.append({"signature": folder.path.name, "seed": index} | names)
    write_status(folders["RUNNING"].path, "RUNNING", pid=2**22 + 1)
    checkpoint = folders["RUNNING"].checkpoints / "step-000008"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").touch()
    (output / "sweeps" / "s").mkdir(parents=True)
    (output / "sweeps" / "s" / "sweep.json").write_text(
        json.dumps({"study": "s", "command": "python sweep.py", "factor": None, "cells": cells})
    )
    counts = []
    for _ in range(2):
        command = [sys.executable, "-m", "sweeps", "sync", "s", "--output", str(output)]
        subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT, check=True)
        counts.append(num_points(server.folder / "mlflow.db"))
    assert counts[0] == counts[1]
    found = {run.data.params["seed"]: run for run in runs(server.uri, "cli")}
    for index, (state, status) in enumerate(ends.items()):
        run, expected = found[str(index)], recorded(folders[state])
        if state == "RUNNING":  # what a later attempt computes again is not in MLflow yet: steps 0 to 7 are durable
            expected = {name: [point for point in points if point[0] < 8] for name, points in expected.items()}
        assert run.info.status == status
        assert copied(client(server.uri), run.info.run_id) == expected


def test_sixteen_processes_on_a_fresh_store_lose_no_point(tmp_path: Path) -> None:
    """They create its tables, its experiment and their runs at the same moment."""
    uri = f"sqlite:///{tmp_path / 'new ü' / 'mlflow.db'}"
    folders = []
    for index in range(16):
        folder = run_folder(tmp_path / f"run-{index}", configuration(uri, "crowd") | {"seed": index})
        record(folder, range(40), clock=1000.0 + index)
        folder.write_status("COMPLETED", 40, 40)
        folders.append(folder)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.tracking", "trainer.tracking.mlflow_copy"])
    together = context.Barrier(16)
    jobs = [context.Process(target=follow_to_the_end, args=(str(folder.path), together.wait)) for folder in folders]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(300)
    assert [job.exitcode for job in jobs] == [0] * 16
    found = {run.data.params["seed"]: run for run in runs(uri, "crowd")}
    assert len(runs(uri, "crowd")) == 16
    for index, folder in enumerate(folders):
        assert copied(client(uri), found[str(index)].info.run_id) == recorded(folder)
        assert found[str(index)].info.status == "FINISHED"


def test_two_syncs_of_one_run_at_once_make_one_mlflow_run(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for attempt in range(3):
        folder = run_folder(tmp_path / f"run-{attempt}", configuration(uri, f"twice {attempt}"))
        record(folder, range(STEPS))
        folder.write_status("COMPLETED", STEPS, STEPS)
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(sync, [folder.path, folder.path])) == [True, True]
        (run,) = runs(uri, f"twice {attempt}")
        assert copied(client(uri), run.info.run_id) == recorded(folder)
