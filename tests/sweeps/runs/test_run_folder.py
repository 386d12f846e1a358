"""The run folder as sweeps sees it: freezing, status, lock, life and death."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sweeps.queues.liveness import is_alive
from sweeps.queues.scheduler import Scheduler
from sweeps.runs.run_folder import read_run, write_run
from trainer.contract.identity import signature
from trainer.contract.liveness import is_locked, lock
from trainer.contract.paths import ROOT
from trainer.contract.run_folder import next_attempt
from trainer.contract.settings import ConfigError
from trainer.contract.status import Status, read_status, write_status

CONFIG = {"seed": 0, "optim": {"lr": 1e-4, "eps": 1e-08, "betas": [0.9, 0.95]}, "model": {"path": None, "dtype": "no"}}


def test_freezing_keeps_the_signature(tmp_path: Path) -> None:
    write_run(tmp_path / "run", CONFIG)
    assert signature(read_run(tmp_path / "run")) == signature(CONFIG)


def test_a_folder_of_another_experiment_is_left_alone(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    before = (tmp_path / "run.yaml").read_text()
    with pytest.raises(ConfigError, match="belongs to another configuration"):
        write_run(tmp_path, {**CONFIG, "seed": 1})
    assert (tmp_path / "run.yaml").read_text() == before


def test_settings_that_cannot_move_a_curve_may_change_between_attempts(tmp_path: Path) -> None:
    write_run(tmp_path, {**CONFIG, "checkpoint": {"every": 5}})
    write_run(tmp_path, {**CONFIG, "checkpoint": {"every": 1}})
    assert read_run(tmp_path)["checkpoint"] == {"every": 1}


@pytest.mark.parametrize("text", ["- a list\n", "{torn: [1,"])
def test_a_torn_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        read_run(tmp_path)


def test_a_status_changes_only_what_is_said(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    write_status(tmp_path, "QUEUED", steps=40, job="slurm:7")
    status = write_status(tmp_path, "RUNNING", step=3)
    assert (status.state, status.steps, status.step, status.job) == ("RUNNING", 40, 3, "slurm:7")
    assert read_status(tmp_path) == status


def test_a_status_with_keys_of_a_later_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "RUNNING", "mood": "good"}')
    assert read_status(tmp_path) == Status(state="RUNNING")


def test_only_one_process_has_a_run_and_its_end_frees_it(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
    code += "from trainer.contract.liveness import lock\n"
    code += f"held = lock(Path({str(tmp_path)!r})); print('held', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    assert is_locked(tmp_path)
    assert lock(tmp_path, patience_s=0.1) is None
    other.kill()
    other.wait()
    assert not is_locked(tmp_path)
    held = lock(tmp_path)
    assert held is not None
    held.close()


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


HERE = socket.gethostname()


def listed(*jobs: str) -> Scheduler:
    return Scheduler(cluster="", states=dict.fromkeys(jobs, "RUNNING"))


def test_a_run_whose_process_has_gone_is_not_alive(tmp_path: Path, dead_pid: int) -> None:
    assert not is_alive(tmp_path, Status(state="RUNNING", pid=dead_pid, host=HERE), None)
    assert not is_alive(tmp_path, Status(state="QUEUED", pid=dead_pid, host=HERE), None)


def test_a_stranger_with_the_number_of_a_dead_process_is_not_our_run(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        assert not is_alive(tmp_path, Status(state="RUNNING", pid=stranger.pid, host=HERE), None)
    finally:
        stranger.kill()
        stranger.wait()


def test_a_held_lock_is_life_whatever_the_process_number_says(tmp_path: Path, dead_pid: int) -> None:
    held = lock(tmp_path)
    assert held is not None
    assert is_alive(tmp_path, Status(state="RUNNING", pid=dead_pid, host=HERE), None)
    held.close()


def test_what_cannot_be_known_counts_as_alive(tmp_path: Path) -> None:
    assert is_alive(tmp_path, Status(state="RUNNING", pid=1, host="node7", job="slurm:7"), None)
    assert is_alive(tmp_path, Status(state="QUEUED", job="slurm:7"), None)


def test_the_scheduler_knows_its_jobs(tmp_path: Path) -> None:
    assert is_alive(tmp_path, Status(state="QUEUED", job="slurm:7_1"), listed("7_1"))
    assert not is_alive(tmp_path, Status(state="QUEUED", job="slurm:7_1"), listed("7_2"))
    assert is_alive(tmp_path, Status(state="PREEMPTED", job="slurm:7_1"), listed("7_1")), "it is queued again"
    (next_attempt(tmp_path) / "job").write_text("slurm:8\n")  # the trainer's own status does not name the job
    assert not is_alive(tmp_path, Status(state="RUNNING", pid=os.getpid(), host="node7"), listed())


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "PRUNED", "PREEMPTED", "LOST", "PLANNED"])
def test_an_ended_run_is_not_alive(tmp_path: Path, state: str) -> None:
    assert not is_alive(tmp_path, Status(state=state, pid=os.getpid(), host=HERE), None)


def test_attempts_are_counted_from_one(tmp_path: Path) -> None:
    assert [next_attempt(tmp_path).name for _ in range(11)] == [str(number) for number in range(1, 12)]


def test_run_yaml_is_plain_yaml(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    assert yaml.safe_load((tmp_path / "run.yaml").read_text()) == CONFIG
