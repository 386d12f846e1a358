"""Who is alive, and what the dead are called: lock, scheduler, process, heartbeat."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.queues.liveness import alive_or_unknown, is_alive, record_dead_runs
from sweeps.queues.scheduler import Scheduler
from tests.sweeps.conftest import Clock
from trainer.contract.liveness import BEAT_S, SILENT_S, beat, lock, silent_s
from trainer.contract.run_folder import next_attempt
from trainer.contract.status import Status, read_status, write_status

HERE = socket.gethostname()
JOB = "slurm:7@here"


def answer(monkeypatch: pytest.MonkeyPatch, state: str | None) -> None:
    """What Slurm says of job 7 from now on; None: it is not listed."""
    states = {} if state is None else {"7": state}
    monkeypatch.setattr("sweeps.queues.liveness.ask", lambda: Scheduler(cluster="here", states=states))


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def state(run_dir: Path) -> tuple[str, str | None]:
    status = read_status(run_dir)
    assert status is not None
    return status.state, status.message


def test_a_job_elsewhere_that_beats_is_believed_against_the_scheduler(tmp_path: Path, clock: Clock) -> None:
    gone = Scheduler(cluster="here", states={})
    status = Status(state="RUNNING", job=JOB, host="node7")
    beat(tmp_path)
    assert is_alive(tmp_path, status, gone)
    clock.pass_s(SILENT_S - 1)
    assert is_alive(tmp_path, status, gone)
    clock.pass_s(2)
    assert not is_alive(tmp_path, status, gone), "lock free, not listed, silent"
    assert is_alive(tmp_path, status, None), "but what Slurm has not denied is alive"


def test_a_heartbeat_means_nothing_here_where_the_lock_tells(tmp_path: Path, dead_pid: int) -> None:
    beat(tmp_path)
    assert not is_alive(tmp_path, Status(state="RUNNING", pid=dead_pid, host=HERE), None)
    assert not is_alive(tmp_path, Status(state="RUNNING", job=JOB, host=HERE), Scheduler(cluster="here", states={}))


@pytest.mark.parametrize("state", ["RUNNING", "QUEUED"])
def test_after_a_change_of_host_name_a_free_lock_and_silence_end_a_local_run(
    tmp_path: Path, clock: Clock, state: str
) -> None:
    status = write_status(tmp_path, state, pid=1, host="the-name-before", job="local:x" if state == "RUNNING" else None)
    assert alive_or_unknown(tmp_path, status, None) is True, "its status is news enough"
    clock.pass_s(3600)
    assert alive_or_unknown(tmp_path, status, None) is False
    beat(tmp_path)
    assert alive_or_unknown(tmp_path, status, None) is True
    clock.pass_s(3600)
    assert silent_s(tmp_path) == pytest.approx(3600, abs=1e-3)
    held = lock(tmp_path)
    assert held is not None
    assert alive_or_unknown(tmp_path, status, None) is True
    held.close()
    assert alive_or_unknown(tmp_path, status, None) is False
    record_dead_runs([tmp_path])
    assert read_status(tmp_path).state == ("LOST" if state == "RUNNING" else "PLANNED")  # type: ignore[union-attr]


def test_the_run_of_another_user_is_for_that_user_to_judge(
    tmp_path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = write_status(tmp_path, "RUNNING", pid=dead_pid, host=HERE)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    assert alive_or_unknown(tmp_path, status, None) is None
    assert record_dead_runs([tmp_path]) == []


def test_silence_outlasts_several_beats() -> None:
    assert SILENT_S >= 3 * BEAT_S


@pytest.mark.parametrize(
    ("slurm", "expected"),
    [
        ("CANCELLED", ("CANCELLED", "its Slurm job was cancelled")),
        ("TIMEOUT", ("LOST", "its Slurm job reached its time limit")),
        ("OUT_OF_MEMORY", ("LOST", "its Slurm job ran out of memory")),
        ("NODE_FAIL", ("LOST", "the node of its Slurm job failed")),
        ("FAILED", ("LOST", "its Slurm job has gone without a word")),
        (None, ("LOST", "its Slurm job has gone without a word")),
        ("RUNNING", ("RUNNING", None)),
        ("PENDING", ("RUNNING", None)),
        ("SOMETHING_NEW", ("RUNNING", None)),
    ],
)
def test_a_run_is_called_by_how_its_job_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: str | None, expected: tuple[str, str | None]
) -> None:
    write_status(tmp_path, "RUNNING", job=JOB, host="node7")
    answer(monkeypatch, slurm)
    assert record_dead_runs([tmp_path]) == ([tmp_path] if expected[0] != "RUNNING" else [])
    assert state(tmp_path) == expected


def test_a_preempted_run_whose_job_was_not_queued_again_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_status(tmp_path, "PREEMPTED", job=JOB, host="node7")
    answer(monkeypatch, "PENDING")
    record_dead_runs([tmp_path])
    assert state(tmp_path)[0] == "PREEMPTED"
    answer(monkeypatch, "TIMEOUT")
    record_dead_runs([tmp_path])
    assert state(tmp_path)[0] == "LOST"


def test_a_local_run_that_saved_before_it_left_is_not_lost(tmp_path: Path, dead_pid: int) -> None:
    write_status(tmp_path, "PREEMPTED", pid=dead_pid, host=HERE)
    assert record_dead_runs([tmp_path]) == []
    assert state(tmp_path)[0] == "PREEMPTED"


def test_a_run_that_no_job_ever_had_is_planned_again(tmp_path: Path, dead_pid: int) -> None:
    write_status(tmp_path, "QUEUED", pid=dead_pid, host=HERE)
    assert record_dead_runs([tmp_path]) == []
    assert state(tmp_path) == ("PLANNED", "its launcher went before a job had it")


def test_a_run_whose_job_died_before_its_trainer_spoke_is_lost(tmp_path: Path, dead_pid: int) -> None:
    write_status(tmp_path, "QUEUED", pid=dead_pid, host=HERE, job="local:x")
    assert record_dead_runs([tmp_path]) == [tmp_path]
    assert state(tmp_path)[0] == "LOST"


def test_an_earlier_job_says_nothing_of_a_run_that_waits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (next_attempt(tmp_path) / "job").write_text("slurm:6@here")
    write_status(tmp_path, "QUEUED", job=JOB, host="node7")
    answer(monkeypatch, "PENDING")
    record_dead_runs([tmp_path])
    assert state(tmp_path)[0] == "QUEUED"


def test_what_somebody_works_on_is_not_touched(tmp_path: Path, dead_pid: int) -> None:
    write_status(tmp_path, "RUNNING", pid=dead_pid, host=HERE)
    held = lock(tmp_path)
    assert held is not None
    assert record_dead_runs([tmp_path]) == []
    held.close()
    assert record_dead_runs([tmp_path]) == [tmp_path]


def test_a_stopped_run_was_cancelled_not_lost(tmp_path: Path, dead_pid: int) -> None:
    write_status(tmp_path, "RUNNING", pid=dead_pid, host=HERE)
    (tmp_path / "STOP").write_text("cancel\n")
    record_dead_runs([tmp_path])
    assert state(tmp_path) == ("CANCELLED", "cancelled")


def test_what_waits_for_this_very_launcher_waits_for_nobody_once_it_is_over(tmp_path: Path) -> None:
    write_status(tmp_path, "QUEUED", pid=os.getpid(), host=HERE)
    record_dead_runs([tmp_path], queue_drained=True)
    assert state(tmp_path)[0] == "PLANNED"
