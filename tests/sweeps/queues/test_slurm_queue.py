"""``launcher=slurm`` against stand-ins for sbatch, squeue and scancel; the real thing is a matter of CI."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.queues.scheduler import Scheduler, ask
from sweeps.queues.slurm import SlurmQueue
from sweeps.queues.worker import Job
from sweeps.runs.run_folder import write_run
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError, filled
from trainer.contract.status import read_status, write_status

FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins: what they are asked for is written down, ``queue`` holds what squeue answers."""
    folder = tmp_path / "bin"
    folder.mkdir()
    place = shlex.quote(str(folder))
    programs = {
        "sbatch": f'cp "$1" {place}/script; echo "Submitted batch job 4711"',
        "srun": "true",
        "squeue": f"cat {place}/queue",
        "scancel": f'echo "$@" >> {place}/cancelled',
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    (folder / "queue").write_text("4711_0 RUNNING\n4711_1 PENDING\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    made = []
    for seed in (0, 1):
        run_dir = tmp_path / "runs" / str(seed)
        write_run(run_dir, {"seed": seed})
        write_status(run_dir, "QUEUED", pid=os.getpid())
        made.append(Job(run_dirs=(str(run_dir),)))
    return made


def test_a_sweep_is_one_array_with_a_cap_and_a_signal_before_the_limit(
    cluster: Path, jobs: list[Job], tmp_path: Path
) -> None:
    queue = SlurmQueue(parallel=1, partition="gpu", time_min=60, signal_lead_s=240, extra={"comment": "rlvr"})
    queue.require_available()
    queue.open(tmp_path / "jobs", jobs)
    lines = (cluster / "script").read_text().splitlines()
    for expected in (
        "--array=0-1%1",
        "--partition=gpu",
        "--time=60",
        "--signal=USR2@240",
        "--gpus-per-node=1",
        "--comment=rlvr",
        "--open-mode=append",
    ):
        assert f"#SBATCH {expected}" in lines
    assert any(line.startswith("export PYTHONPATH=") for line in lines)


def test_runs_know_their_job_so_that_it_can_be_found_without_the_launcher(
    cluster: Path, jobs: list[Job], tmp_path: Path
) -> None:
    SlurmQueue().open(tmp_path / "jobs", jobs)
    assert [read_status(Path(job.run_dirs[0])).job for job in jobs] == ["slurm:4711_0", "slurm:4711_1"]  # type: ignore[union-attr]


def test_a_single_run_is_a_plain_job(cluster: Path, jobs: list[Job], tmp_path: Path) -> None:
    SlurmQueue(gpus=0).open(tmp_path / "jobs", jobs[:1])
    assert "--array" not in (cluster / "script").read_text()
    assert read_status(Path(jobs[0].run_dirs[0])).job == "slurm:4711"  # type: ignore[union-attr]


def test_the_pool_is_busy_as_long_as_one_of_its_jobs_is_listed(cluster: Path, jobs: list[Job], tmp_path: Path) -> None:
    def pool() -> bool:
        return SlurmQueue().open(tmp_path / "jobs", jobs).poll()

    (cluster / "queue").write_text("4711_1 PENDING\n99 RUNNING\n")
    assert pool()
    (cluster / "queue").write_text("99 RUNNING\n")
    assert not pool()


def test_a_scheduler_that_cannot_be_asked_leaves_everything_alive(
    cluster: Path, jobs: list[Job], tmp_path: Path
) -> None:
    pool = SlurmQueue().open(tmp_path / "jobs", jobs)
    (cluster / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert ask() is None
    assert pool.poll()


def test_stopping_cancels_the_jobs(cluster: Path, jobs: list[Job], tmp_path: Path) -> None:
    SlurmQueue().open(tmp_path / "jobs", jobs).stop()
    assert (cluster / "cancelled").read_text().split() == ["4711_0", "4711_1"]


def test_a_refusal_of_the_scheduler_is_one_sentence(cluster: Path, jobs: list[Job], tmp_path: Path) -> None:
    (cluster / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match=r"Slurm refused the jobs: .*invalid partition specified") as refusal:
        SlurmQueue().open(tmp_path / "jobs", jobs)
    assert "\n" not in str(refusal.value)


def test_without_slurm_the_choice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="launcher=slurm needs sbatch and srun"):
        SlurmQueue().require_available()


def test_programs_of_slurm_without_a_cluster_are_refused_before_anything_is_written(cluster: Path) -> None:
    """Debian's package alone: sbatch is there, and has nobody to ask."""
    (cluster / "squeue").write_text(
        "#!/bin/sh\necho 'squeue: fatal: Could not establish a configuration' >&2\nexit 1\n"
    )
    with pytest.raises(ConfigError, match="no Slurm cluster answers squeue"):
        SlurmQueue().require_available()


@pytest.mark.parametrize("state", ["RESIZING", "SIGNALING", "STAGE_OUT", "A_STATE_OF_A_LATER_SLURM", ""])
def test_a_state_that_nobody_here_knows_is_alive(cluster: Path, jobs: list[Job], tmp_path: Path, state: str) -> None:
    pool = SlurmQueue().open(tmp_path / "jobs", jobs)
    (cluster / "queue").write_text(f"4711_1 {state}\n")
    assert pool.poll()


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"])
def test_a_job_that_slurm_still_remembers_is_over(cluster: Path, jobs: list[Job], tmp_path: Path, state: str) -> None:
    pool = SlurmQueue().open(tmp_path / "jobs", jobs)
    (cluster / "queue").write_text(f"4711_0 {state}\n4711_1 {state}\n")
    assert not pool.poll()


def test_a_job_of_another_cluster_is_not_given_up() -> None:
    here = Scheduler(cluster="here", states={"7_1": "RUNNING"})
    assert here.has("slurm:7_1@here") is True
    assert here.has("slurm:7_2@here") is False
    assert here.has("slurm:7_2@there") is None
    assert here.end_of("slurm:7_1@there") is None


@pytest.mark.parametrize(("nodes", "spreads"), [("a\\na", False), ("a\\nb", True), ("", True)])
def test_a_sqlite_file_on_several_nodes_is_warned_about(
    cluster: Path, sweep: Callable[..., int], capsys: pytest.CaptureFixture[str], nodes: str, spreads: bool
) -> None:
    (cluster / "sinfo").write_text(f"#!/bin/sh\nprintf '{nodes}'\n")
    (cluster / "sinfo").chmod(0o755)
    assert sweep("-m", "seed=0,1", "launcher=slurm", "plan=true", base=[f"launcher.trainer=[{FAKE}]"]) == 0
    assert ("SQLite is not safe on network file systems" in capsys.readouterr().err) is spreads


def test_waiting_jobs_alone_can_be_stopped(cluster: Path, jobs: list[Job], tmp_path: Path) -> None:
    SlurmQueue().open(tmp_path / "jobs", jobs).stop(running=False)
    assert (cluster / "cancelled").read_text().split() == ["--state=PENDING", "4711_0", "4711_1"]


def test_more_cells_than_an_array_holds_share_jobs_so_that_the_cap_holds() -> None:
    assert SlurmQueue().job_size(1000) == 1
    assert SlurmQueue().job_size(1001) == 2
    assert SlurmQueue(runs_per_job=30).job_size(10_000) == 30


def test_every_rank_needs_a_gpu() -> None:
    SlurmQueue(gpus=4).require_room_for(4)
    SlurmQueue(gpus=0).require_room_for(4)
    with pytest.raises(ConfigError, match=r"hardware\.processes=4 cannot be used: .*launcher\.gpus=4"):
        SlurmQueue(gpus=2).require_room_for(4)


def test_a_path_that_slurm_would_read_as_a_pattern_is_refused(cluster: Path, jobs: list[Job], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Slurm reads % in a path as a pattern"):
        SlurmQueue().open(tmp_path / "100%" / "jobs", jobs)


@pytest.mark.parametrize("setting", ["parallel", "runs_per_job", "cpus", "time_min"])
def test_settings_below_one_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"launcher\.{setting}=0"):
        filled(SlurmQueue, {setting: 0}, "launcher")


def test_a_detached_sweep_returns_and_is_joined_later(
    cluster: Path, sweep: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ("-m", "seed=0,1", "launcher=slurm", "launcher.detach=true")
    assert sweep(*arguments) == 0
    assert "python -m sweeps status seed-steps-3" in capsys.readouterr().out
    assert sweep(*arguments, "plan=true") == 0
    assert "2 running" in capsys.readouterr().out
