"""The queue, the real trainer and a real MLflow store when a job dies at once with everything it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import record
from waiting import wait_for

from sweeps.queues.processes import marked
from trainer.contract.paths import ROOT
from trainer.storage.record import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SETTINGS = ("study=smoke", "steps=80", "engine=transformers", "hardware.num_threads=1", "study.name=killed")
MORE = ("accounting=none", "hardware.device=cpu", "seed=5", "checkpoint.every=1")


def status(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "status.json").read_text())
    return found


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )


def test_a_killed_job_is_lost_here_and_in_mlflow_and_goes_on(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "out 'put' ü"
    folder.mkdir()
    sweep = [str(ROOT / "sweep.py"), "-m", *SETTINGS, *MORE]
    launcher = subprocess.Popen([sys.executable, *sweep], cwd=folder, stdout=subprocess.DEVNULL)
    wait_for(lambda: list((folder / "outputs" / "runs").glob("*/metrics.jsonl")))
    (run,) = (folder / "outputs" / "runs").iterdir()
    wait_for(lambda: status(run)["step"] >= 2)
    launcher.kill()  # first the launcher, so that nobody is left who could notice
    launcher.wait()
    job = (run / "attempts" / "1" / "job").read_text()

    def kill_all() -> bool:
        """Whether nothing of the job is left: a process may have been born while the others were killed."""
        left = list(marked(job))
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_for(kill_all)
    assert status(run)["state"] == "RUNNING", "a dead job says nothing"

    def is_lost() -> bool:
        """A killed process that is large holds its lock for a moment after it can no longer be seen."""
        return python("-m", "sweeps", "status", "killed", cwd=folder).stdout.rstrip().endswith("1 lost")

    wait_for(is_lost)
    assert status(run)["state"] == "LOST"
    client = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("rlvr-entropy")
    assert experiment is not None

    def cell() -> Any:
        (found,) = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
        return found.info.status

    assert cell() == "KILLED"
    again = python("-m", "sweeps", "retry", "killed", "lost", cwd=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert status(run)["state"] == "COMPLETED" and cell() == "FINISHED"
    undisturbed = RunFolder(tmp_path / "undisturbed")
    undisturbed.path.mkdir()
    document = (run / "run.yaml").read_text()
    (undisturbed.path / "run.yaml").write_text(document)
    done = python("-m", "trainer", str(undisturbed.path), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert record(RunFolder(run)) == record(undisturbed)
