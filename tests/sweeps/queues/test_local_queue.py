"""Slots on one machine, through the real Submitit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import wait_for

from sweeps.queues import gpus, local
from sweeps.queues.local import LocalPool, LocalQueue
from sweeps.queues.worker import Job
from sweeps.runs.run_folder import write_run
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError, filled
from trainer.contract.status import read_status, write_status

FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"


@pytest.fixture
def jobs(tmp_path: Path) -> Callable[..., list[Job]]:
    """One job per seed."""

    def make(*seeds: int, steps: int = 2) -> list[Job]:
        made = []
        for number, seed in enumerate(seeds):
            run_dir = tmp_path / "runs" / str(number)
            write_run(run_dir, {"seed": seed, "steps": steps, "surrogate": {"clip_high": 0.2}})
            write_status(run_dir, "QUEUED", steps=steps)
            made.append(Job(run_dirs=(str(run_dir),), trainer=(str(FAKE),), grace_s=2))
        return made

    return make


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., LocalPool]]:
    """Opens a pool that is stopped at the end of the test."""
    pools: list[LocalPool] = []

    def make(queue: LocalQueue, jobs: list[Job]) -> LocalPool:
        pools.append(queue.open(tmp_path / "jobs 'x", jobs))
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop()


def run_out(pool: LocalPool, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while pool.poll():
        assert time.monotonic() < end, "the queue did not empty in time"
        time.sleep(0.1)


def start_lines(tmp_path: Path) -> list[list[str]]:
    return [path.read_text().split() for path in sorted((tmp_path / "runs").glob("*/started"))]


def test_never_more_jobs_than_slots_and_each_with_its_own_gpu(
    tmp_path: Path, jobs: Callable[..., list[Job]], opened: Callable[..., LocalPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    made = jobs(16, 16, 16, 16, steps=10)  # 6 s each: longer than a busy machine takes to start the next
    pool = opened(LocalQueue(), made)
    most, together = 0, set()
    while pool.poll():
        running = [
            path for path in (tmp_path / "runs").glob("*/started") if read_status(path.parent).state == "RUNNING"
        ]  # type: ignore[union-attr]
        most = max(most, len(running))
        together.add(frozenset(path.read_text().split()[2] for path in running))
        time.sleep(0.05)
    assert most == 2
    assert frozenset({"3", "5"}) in together
    assert all(read_status(Path(job.run_dirs[0])).state == "COMPLETED" for job in made)  # type: ignore[union-attr]


def test_one_slot_per_gpu_and_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert LocalQueue().concurrency == 4
    assert LocalQueue(gpus_per_job=2).concurrency == 2
    assert local._gpu_sets(2, 2) == ["0,1", "2,3"]
    assert local._gpu_sets(5, 1) == ["0", "1", "2", "3", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert LocalQueue().concurrency == 1
    assert local._gpu_sets(2, 1) == [None, None]


def test_gpus_are_counted_by_the_driver_when_nobody_chose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: B (UUID: y)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    gpus._listed_gpus.cache_clear()
    assert gpus.visible_gpus() == ["0", "1"]
    gpus._listed_gpus.cache_clear()


@pytest.mark.parametrize(
    ("gpu", "slots", "runs", "size"),
    [("", None, 12, 12), ("", None, 30, 10), ("", 2, 4, 2), ("", None, 1, 1), ("", 4, 2, 1), ("0,1", None, 12, 1)],
)
def test_start_up_is_shared_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, gpu: str, slots: int | None, runs: int, size: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpu)
    assert LocalQueue(slots=slots).job_size(runs) == size
    assert LocalQueue(runs_per_job=5).job_size(runs) == 5


class EndlessExecutor:
    """Starts nothing; its jobs never end."""

    def __init__(self, *arguments: object) -> None:
        self.job_id = "0"

    def update_parameters(self, **parameters: object) -> None:
        """Nothing to set."""

    def submit(self, job: Job) -> EndlessExecutor:
        return self

    def done(self) -> bool:
        return False


def test_no_more_jobs_start_at_a_time_than_there_are_cores(
    jobs: Callable[..., list[Job]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(local, "num_cores", lambda: 2)
    monkeypatch.setattr(local, "_SessionExecutor", EndlessExecutor)
    made = jobs(0, 1, 2, 3)
    pool = LocalQueue(slots=4).open(tmp_path, made)

    def started() -> int:
        pool.poll()
        return len(pool._running)

    assert started() == 2
    write_status(Path(made[0].run_dirs[0]), "RUNNING", step=0)
    assert started() == 2
    write_status(Path(made[0].run_dirs[0]), "RUNNING", step=1)
    assert started() == 3
    write_status(Path(made[1].run_dirs[0]), "FAILED")
    assert started() == 4


def test_stopping_leaves_no_process_behind(
    tmp_path: Path, jobs: Callable[..., list[Job]], opened: Callable[..., LocalPool]
) -> None:
    made = jobs(17, 17, steps=100)  # each trainer starts children that sleep for minutes, one in its own session
    pool = opened(LocalQueue(slots=1, grace_s=5), made)
    pool.poll()
    wait_for(lambda: len(processes(tmp_path / "runs")) >= 3)
    time.sleep(0.8)
    pool.stop()
    wait_for(lambda: processes(tmp_path / "runs") == [], seconds=5)
    assert read_status(Path(made[0].run_dirs[0])).state == "CANCELLED"  # type: ignore[union-attr]
    assert not pool.poll()
    assert not (Path(made[1].run_dirs[0]) / "started").exists()


def test_a_killed_trainer_leaves_no_grandchild(
    tmp_path: Path, jobs: Callable[..., list[Job]], opened: Callable[..., LocalPool]
) -> None:
    (job,) = jobs(17, steps=100)
    pool = opened(LocalQueue(slots=1), [job])
    pool.poll()
    wait_for(lambda: len(processes(tmp_path / "runs")) >= 3)
    os.kill(int(start_lines(tmp_path)[0][0]), signal.SIGKILL)
    run_out(pool)
    wait_for(lambda: processes(tmp_path / "runs") == [], seconds=5)
    assert read_status(Path(job.run_dirs[0])).message == "killed by SIGKILL (out of memory?)"  # type: ignore[union-attr]


def processes(mentioning: Path) -> list[int]:
    """Processes with a run folder on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(mentioning).encode() in command:
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"slots": 0}, "launcher.slots=0 cannot be used"), ({"runs_per_job": 0}, "launcher.runs_per_job=0"),
     ({"gpus_per_job": 0}, "launcher.gpus_per_job=0"), ({"detach": True}, "a local queue needs its launcher")],
)  # fmt: skip
def test_impossible_settings_are_refused(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        filled(LocalQueue, setting, "launcher")


def test_every_rank_needs_a_gpu_of_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    LocalQueue(gpus_per_job=2).require_room_for(2)
    with pytest.raises(ConfigError, match=r"hardware\.processes=2 cannot be used: .*launcher\.gpus_per_job=2"):
        LocalQueue().require_room_for(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    LocalQueue().require_room_for(2)  # on a CPU ranks share the cores


def test_stopping_what_waits_leaves_what_runs(
    tmp_path: Path, jobs: Callable[..., list[Job]], opened: Callable[..., LocalPool]
) -> None:
    made = jobs(16, 16, steps=3)
    pool = opened(LocalQueue(slots=1), made)
    pool.poll()
    wait_for(lambda: len(start_lines(tmp_path)) == 1)
    pool.stop(running=False)
    assert not pool.poll()
    wait_for(lambda: read_status(Path(made[0].run_dirs[0])).state == "COMPLETED")  # type: ignore[union-attr]
    assert not (Path(made[1].run_dirs[0]) / "started").exists()


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ConfigError, match="this machine offers 1"):
        LocalQueue(gpus_per_job=2).require_available()
