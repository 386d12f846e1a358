"""The job function: one trainer process for several runs, and no run takes its neighbours along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import wait_for

from sweeps.queues.worker import Job, RunsFailed
from sweeps.runs.run_folder import write_run
from trainer.contract.liveness import lock
from trainer.contract.paths import ROOT
from trainer.contract.status import read_status, write_status

FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A queued run folder; the seed chooses what goes wrong (see fake_trainer.SEEDS)."""

    def make(seed: int, steps: int = 3) -> Path:
        run_dir = tmp_path / f"run {seed} 'ü"  # hostile on purpose
        write_run(
            run_dir, {"seed": seed, "steps": steps, "surrogate": {"clip_high": 0.2}, "hardware": {"processes": 1}}
        )
        write_status(run_dir, "QUEUED", steps=steps)
        return run_dir

    return make


def job(*run_dirs: Path) -> Job:
    return Job(run_dirs=tuple(map(str, run_dirs)), trainer=(str(FAKE),), grace_s=5)


def states(*run_dirs: Path) -> list[str]:
    return [status.state for run_dir in run_dirs if (status := read_status(run_dir))]


def starts(run_dir: Path) -> list[str]:
    path = run_dir / "started"
    return path.read_text().splitlines() if path.exists() else []


def test_runs_of_a_job_share_one_process(make_run: Callable[..., Path]) -> None:
    runs = [make_run(seed) for seed in (1, 2, 3)]
    assert set(job(*runs)().values()) == {"COMPLETED"}
    assert len({starts(run)[0].split()[0] for run in runs}) == 1
    assert all("training" in (run / "attempts" / "1" / "out").read_text() for run in runs)


@pytest.mark.parametrize(
    ("seed", "state", "message"),
    [
        (13, "FAILED", "RuntimeError: the loss is not finite"),
        (14, "LOST", "killed by SIGKILL (out of memory?)"),
        (15, "FAILED", "the trainer left with exit code 0"),
        (19, "FAILED", "the trainer crashed in native code with SIGSEGV"),
        (
            20,
            "FAILED",
            "the trainer crashed with SIGBUS: a file that was mapped into memory was cut, or /dev/shm is full",
        ),
        (21, "FAILED", "the trainer gave up in native code with SIGABRT"),
    ],
)
def test_a_crash_leaves_its_neighbours_and_says_why(
    make_run: Callable[..., Path], seed: int, state: str, message: str
) -> None:
    before, bad, after = make_run(1), make_run(seed), make_run(2)
    with pytest.raises(RunsFailed, match="1 of 3 runs failed: run "):  # so that the scheduler shows it as well
        job(before, bad, after)()
    assert states(before, bad, after) == ["COMPLETED", state, "COMPLETED"]
    status = read_status(bad)
    assert status is not None and status.message is not None
    assert status.message.startswith(message)
    assert len(starts(before)) == 1, "a finished neighbour does not run again"


def test_the_traceback_is_in_the_folder_of_the_run_that_failed(make_run: Callable[..., Path]) -> None:
    bad = make_run(13)
    with pytest.raises(RunsFailed):
        job(make_run(1), bad)()
    traceback = (bad / "attempts" / "1" / "traceback").read_text()
    assert traceback.startswith("Traceback (most recent call last)")
    assert traceback.rstrip().endswith("RuntimeError: the loss is not finite")


def test_a_trainer_that_cannot_start_fails_each_run_once(make_run: Callable[..., Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import a_module_that_is_not_there")
    runs = [make_run(1), make_run(2)]
    with pytest.raises(RunsFailed, match="2 of 2 runs failed"):
        Job(run_dirs=tuple(map(str, runs)), trainer=(str(broken),))()
    assert states(*runs) == ["FAILED", "FAILED"]
    assert {read_status(run).message for run in runs} == {
        "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
    }  # type: ignore[union-attr]
    assert [len(list((run / "attempts").iterdir())) for run in runs] == [1, 2]


def test_a_completed_run_is_not_touched(make_run: Callable[..., Path]) -> None:
    run = make_run(1)
    write_status(run, "COMPLETED")
    assert job(run)() == {str(run): "COMPLETED"}
    assert starts(run) == []


def test_a_run_that_another_process_has_is_left_to_it(make_run: Callable[..., Path]) -> None:
    taken, free = make_run(1), make_run(2)
    held = lock(taken)
    assert held is not None
    job(taken, free)()
    held.close()
    assert starts(taken) == []
    assert len(starts(free)) == 1


def test_a_stopped_run_does_not_start(make_run: Callable[..., Path]) -> None:
    run = make_run(1)
    (run / "STOP").write_text("cancel\n")
    assert job(run)() == {str(run): "CANCELLED"}


def test_a_run_stopped_by_hand_is_cancelled_and_the_next_one_runs(make_run: Callable[..., Path]) -> None:
    slow, other = make_run(16, steps=50), make_run(2)
    process = started(slow, other)
    (slow / "STOP").write_text("cancel\n")
    process.wait(timeout=20)
    assert [read_status(run).state for run in (slow, other)] == ["CANCELLED", "COMPLETED"]  # type: ignore[union-attr]


def test_a_termination_signal_reaches_the_trainer_and_ends_the_job(make_run: Callable[..., Path]) -> None:
    slow, other = make_run(16, steps=50), make_run(2)
    process = started(slow, other)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    status = read_status(slow)
    assert status is not None
    assert (status.state, status.step > 0) == ("PREEMPTED", True)
    assert starts(other) == []


def test_a_preempted_job_saves_and_can_be_queued_again(make_run: Callable[..., Path]) -> None:
    slow = make_run(16, steps=50)
    code = (
        "import os, signal, sys, threading, time; from sweeps.queues import worker\n"
        f"job = worker.Job(run_dirs=({str(slow)!r},), trainer=({str(FAKE)!r},), grace_s=10)\n"
        "signal.signal(signal.SIGUSR2, lambda *_: (print(job.checkpoint().function == job, flush=True), os._exit(0)))\n"
        "job()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    wait_for(lambda: len(starts(slow)) == 1)
    time.sleep(0.3)
    process.send_signal(signal.SIGUSR2)
    out, _ = process.communicate(timeout=20)
    assert out == "True\n"
    assert read_status(slow).state == "PREEMPTED"  # type: ignore[union-attr]


def test_a_run_with_a_damaged_status_is_named_and_its_neighbours_go_on(
    make_run: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    bad, good = make_run(1), make_run(2)
    (bad / "status.json").write_text("")
    with pytest.raises(RunsFailed, match="1 of 2 runs failed"):
        job(bad, good)()
    assert states(good) == ["COMPLETED"] and starts(bad) == []
    assert f"{bad}/status.json is empty" in capfd.readouterr().err


def started(*run_dirs: Path) -> subprocess.Popen[bytes]:
    code = (
        f"from sweeps.queues.worker import Job; Job(run_dirs={tuple(map(str, run_dirs))!r}, trainer=({str(FAKE)!r},))()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    wait_for(lambda: len(starts(run_dirs[0])) == 1)
    time.sleep(0.3)
    return process
