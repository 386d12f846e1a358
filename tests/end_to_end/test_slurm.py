"""``launcher=slurm`` on a real Slurm of one node: a stand-in trainer and, once, the real one with real vLLM."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import record
from slurm_node import NoCluster, SlurmNode, slurm_node
from waiting import wait_for

from sweeps.search.store import find, open_storage
from trainer.contract.paths import ROOT
from trainer.storage.record import RunFolder

pytestmark = pytest.mark.slow
FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"
SLURM = ("launcher=slurm", "launcher.gpus=0", "launcher.cpus=1", "launcher.memory_gib=4", "tracking=none")
STAND_IN = (*SLURM, f"launcher.trainer=[{FAKE}]", "launcher.time_min=60")
HOSTILE = "out 'put' \"ü\" $x;#&"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmNode]:
    try:
        with slurm_node(tmp_path_factory.mktemp("slurm")) as cluster:
            yield cluster
    except NoCluster as reason:
        pytest.skip(f"no Slurm here: {reason}")


class Sweep:
    """A launcher of its own process in a folder with a hostile name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / HOSTILE
        self.folder.mkdir(parents=True)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """``python sweep.py ARGUMENTS``."""
        return self._popen(str(ROOT / "sweep.py"), *arguments)

    def manage(self, *arguments: str) -> str:
        """Output of ``python -m sweeps ARGUMENTS``."""
        process = self._popen("-m", "sweeps", *arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode in (0, 1), err
        return out

    def _popen(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def runs(self) -> list[Path]:
        return sorted((self.folder / "outputs" / "runs").glob("*"))

    def statuses(self) -> list[dict[str, Any]]:
        return [json.loads((run / "status.json").read_text()) for run in self.runs if (run / "status.json").exists()]

    def states(self) -> list[str]:
        return sorted(status["state"] for status in self.statuses())

    def starts(self) -> list[list[str]]:
        """Words of every line that the stand-in trainer left when it began: process, step, GPUs, time."""
        files = [run / "started" for run in self.runs if (run / "started").exists()]
        return [line.split() for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def sweep(node: SlurmNode, tmp_path: Path) -> Iterator[Sweep]:
    before = set(node.states())
    yield Sweep(tmp_path)
    states = {job: state for job, state in node.states().items() if job not in before}
    left = [job for job, state in states.items() if state in ("PENDING", "RUNNING", "COMPLETING")]
    if left:
        node.ask("scancel", *left)


def job_of(run: Path) -> str:
    """``17_0`` for a run whose job has begun."""
    attempts = sorted((run / "attempts").iterdir(), key=lambda path: int(path.name))
    return (attempts[-1] / "job").read_text().removeprefix("slurm:").partition("@")[0]


def untrained(run: Path, path: Path) -> RunFolder:
    """A new folder for the same run."""
    path.mkdir()
    shutil.copy(run / "run.yaml", path)
    return RunFolder(path)


def finished(launcher: subprocess.Popen[str], seconds: float = 120.0) -> tuple[int, str, str]:
    out, err = launcher.communicate(timeout=seconds)
    return launcher.returncode, out, err


def test_a_detached_array_keeps_its_cap_and_is_attached_to(node: SlurmNode, sweep: Sweep) -> None:
    launcher = sweep.start("-m", "seed=16,22,23,24,25,26", "steps=3", *STAND_IN, "launcher.parallel=2",
                           "launcher.detach=true", "study.name=capped")  # fmt: skip
    code, out, err = finished(launcher)
    assert code == 0, err
    assert "python -m sweeps attach capped" in out
    jobs = [status["job"] for status in sweep.statuses()]
    assert len({job.partition("_")[0] for job in jobs}) == 1 and all(job.endswith("@ci") for job in jobs), "one array"
    array, most, states = jobs[0].removeprefix("slurm:").partition("_")[0], 0, ["PENDING"]
    while {"PENDING", "RUNNING"} & set(states):
        states = [state for job, state in node.states().items() if job.startswith(f"{array}_")]
        most = max(most, states.count("RUNNING"))
        time.sleep(0.05)
    assert most == 2
    assert "6 done; nothing to run" in sweep.manage("attach", "capped")
    assert sweep.states() == ["COMPLETED"] * 6 and len(sweep.starts()) == 6


def test_attaching_follows_a_sweep_whose_launcher_was_killed(node: SlurmNode, sweep: Sweep) -> None:
    launcher = sweep.start("-m", "seed=16,18", "steps=8", *STAND_IN, "study.name=orphan")
    wait_for(lambda: len(sweep.starts()) == 2)
    launcher.kill()
    launcher.communicate()
    out = sweep.manage("attach", "orphan")
    assert "2 running; nothing to run" in out and out.count("completed") == 2
    assert sweep.states() == ["COMPLETED", "COMPLETED"] and len(sweep.starts()) == 2


def test_preemption_by_a_better_partition_saves_and_resumes(node: SlurmNode, sweep: Sweep) -> None:
    launcher = sweep.start("-m", "seed=16", "steps=12", *STAND_IN, "launcher.partition=low", "launcher.cpus=6")
    wait_for(lambda: sweep.statuses() and sweep.statuses()[0]["step"] >= 2)
    job = job_of(sweep.runs[0])
    node.ask("srun", "--partition=high", "--cpus-per-task=6", "--mem=1G", "true")
    node.wait_for_state(job, "PENDING")
    assert sweep.states() == ["PREEMPTED"]
    node.start_now(job)
    code, _, err = finished(launcher)
    assert (code, sweep.states()) == (0, ["COMPLETED"]), err
    first, second = sweep.starts()
    assert first[1] == "0" and int(second[1]) >= 2, "it goes on where it was"
    lines = (sweep.runs[0] / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(12))


def test_a_member_that_is_cancelled_is_named_and_the_launcher_returns(node: SlurmNode, sweep: Sweep) -> None:
    launcher = sweep.start("-m", "seed=16,22", "steps=100", *STAND_IN, "launcher.parallel=2")
    wait_for(lambda: len(sweep.starts()) == 2)
    slow = next(run for run in sweep.runs if (run / "run.yaml").read_text().count("seed: 16"))
    node.ask("scancel", job_of(slow))
    code, _, err = finished(launcher)  # accounting is off
    assert code == 1
    assert sweep.states() == ["CANCELLED", "COMPLETED"]
    assert json.loads((slow / "status.json").read_text())["message"] == "its Slurm job was cancelled"
    assert "cancelled: default, seed 16" in err


def test_a_waiting_member_that_is_cancelled_never_starts(node: SlurmNode, sweep: Sweep) -> None:
    launcher = sweep.start("-m", "seed=16,22", "steps=6", *STAND_IN, "launcher.parallel=1")
    wait_for(lambda: len(sweep.starts()) == 1)
    (waiting,) = (status["job"] for status in sweep.statuses() if status["state"] == "QUEUED")
    node.ask("scancel", waiting.removeprefix("slurm:").partition("@")[0])
    assert finished(launcher)[0] == 1
    assert sweep.states() == ["CANCELLED", "COMPLETED"] and len(sweep.starts()) == 1


def test_cancelling_from_the_tool_ends_the_jobs(node: SlurmNode, sweep: Sweep) -> None:
    launcher = sweep.start("-m", "seed=17,18", "steps=100", *STAND_IN, "launcher.parallel=1", "study.name=stop")
    wait_for(lambda: len(sweep.starts()) == 1)
    assert "2 cells asked to stop" in sweep.manage("cancel", "stop", "--now")
    assert finished(launcher)[0] == 1
    assert sweep.states() == ["CANCELLED", "CANCELLED"]


def test_a_requeued_job_saves_and_goes_on(node: SlurmNode, sweep: Sweep) -> None:
    launcher = sweep.start("-m", "seed=16", "steps=10", *STAND_IN)
    wait_for(lambda: sweep.statuses() and sweep.statuses()[0]["step"] >= 2)
    job = job_of(sweep.runs[0])
    node.ask("scontrol", "requeue", job)
    node.wait_for_state(job, "PENDING")
    node.start_now(job)
    assert finished(launcher)[0] == 0
    assert sweep.states() == ["COMPLETED"] and [start[1] == "0" for start in sweep.starts()] == [True, False]


def test_a_job_that_ends_while_it_is_requeued_runs_once(node: SlurmNode, sweep: Sweep) -> None:
    launcher = sweep.start("-m", "seed=18", "steps=4", *STAND_IN)  # deaf to signals: it ends within KillWait
    wait_for(lambda: sweep.statuses() and sweep.statuses()[0]["step"] >= 1)
    job = job_of(sweep.runs[0])
    node.ask("scontrol", "requeue", job)
    node.wait_for_state(job, "PENDING")
    assert sweep.states() == ["COMPLETED"]
    node.start_now(job)
    assert finished(launcher)[0] == 0
    assert node.wait_for_state(job, "COMPLETED") and len(sweep.starts()) == 1
    assert len((sweep.runs[0] / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_failed_cell_fails_its_job(node: SlurmNode, sweep: Sweep) -> None:
    assert finished(sweep.start("-m", "seed=13", *STAND_IN, "steps=3"))[0] == 1
    assert node.wait_for_state(job_of(sweep.runs[0]), "FAILED")


def test_members_have_gpus_of_their_own(node: SlurmNode, sweep: Sweep) -> None:
    alone = ("-m", "seed=16,18", "steps=3", *STAND_IN, "launcher.gpus=1", "launcher.parallel=2")
    assert finished(sweep.start(*alone))[0] == 0
    assert {start[2] for start in sweep.starts()} == {"0", "1"}


def test_two_ranks_of_a_job_start_on_its_gpus_and_both_hear_of_preemption(node: SlurmNode, sweep: Sweep) -> None:
    two = ("launcher.gpus=2", "launcher.memory_gib=8", "hardware.processes=2")
    launcher = sweep.start("-m", "seed=16", "steps=14", *STAND_IN, *two)
    wait_for(lambda: sweep.statuses() and sweep.statuses()[0]["step"] >= 2)
    job = job_of(sweep.runs[0])
    node.ask("scancel", "--signal=USR2", job)
    node.wait_for_state(job, "PENDING")
    assert sweep.states() == ["PREEMPTED"] and (sweep.runs[0] / "told").exists()
    node.start_now(job)
    code, _, err = finished(launcher)
    assert (code, sweep.states()) == (0, ["COMPLETED"]), err
    assert [start[2] for start in sweep.starts()] == ["0,1", "0,1"]


@pytest.fixture(scope="module", autouse=True)
def near_limit(
    node: SlurmNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sweep, subprocess.Popen[str]]]:
    """A run that nears its time limit while the other tests run: limits are minutes, and looked at twice a minute."""
    folder = Sweep(tmp_path_factory.mktemp("near_limit"))
    limit = ("launcher.time_min=1", "launcher.signal_lead_s=50", "launcher.max_timeouts=3", "study.name=limit")
    launcher = folder.start("-m", "seed=16", "steps=130", *STAND_IN[:-1], *limit)
    wait_for(node.states)  # from then on it is known as a job that no other test may cancel
    yield folder, launcher
    launcher.kill()  # without a scheduler to ask it would wait for ever
    launcher.wait()


def test_a_run_goes_on_after_its_time_limit(node: SlurmNode, near_limit: tuple[Sweep, subprocess.Popen[str]]) -> None:
    limited, launcher = near_limit
    wait_for(limited.starts, seconds=90)
    job = job_of(limited.runs[0])
    node.wait_for_state(job, "PENDING", seconds=120)
    node.start_now(job)
    wait_for(lambda: len(limited.starts()) == 2)
    assert int(limited.starts()[1][1]) > 0
    limited.manage("cancel", "limit", "--now")
    assert finished(launcher)[0] == 1
    logs = "".join(path.read_text() for path in limited.folder.glob("outputs/sweeps/limit/jobs/*/*.out"))
    assert "Job has timed out" in logs and "2 remaining timeouts" in logs


def test_preempting_the_real_trainer_leaves_no_trace(node: SlurmNode, sweep: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    real = ("study=smoke", "steps=5", "checkpoint.every=1", "optim.lr=0.003", "hardware.num_threads=1", "seed=3")
    launcher = sweep.start("-m", *real, *SLURM)
    wait_for(lambda: sweep.runs and (sweep.runs[0] / "run.yaml").exists())
    undisturbed = untrained(sweep.runs[0], tmp_path / "undisturbed")
    command = [sys.executable, "-m", "trainer", str(undisturbed.path)]
    alone = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: sweep.statuses() and sweep.statuses()[0]["step"] >= 2, seconds=200)
    job = job_of(sweep.runs[0])
    node.ask("scancel", "--signal=USR2", job)
    node.wait_for_state(job, "PENDING")
    (status,) = sweep.statuses()
    assert status["state"] == "PREEMPTED" and status["step"] < 5
    node.start_now(job)
    code, _, err = finished(launcher, seconds=300)
    assert code == 0, err
    assert alone.wait(300) == 0
    assert [path.name for path in sorted((sweep.runs[0] / "attempts").iterdir())] == ["1", "2"]
    assert record(RunFolder(sweep.runs[0])) == record(undisturbed)


# A temperature decides the entropy from the first step on: which trials are worse than the median is known beforehand.
SEARCH = (
    *("search=clip", "study=smoke", "study.name=tuned", "steps=12", "checkpoint.every=3", "engine=transformers"),
    *("accounting=none", "hardware.num_threads=1", "launcher.parallel=1"),
    *(
        "search.fixed=['optim.updates_per_rollout=2']",
        "search.measure=['evaluation.every=12']",
        "search.preset=false",
        "search.n_trials=4",
        "search.sampler=random",
    ),
    *("search.seeds=[3]", "search.rungs=[1]", "search.confirm_seeds=[]", "search.prune_startup=2"),
    "search.objectives=[{metric:policy/entropy}]",
    "search.space={rollout.temperature:{type:float,low:0.2,high:1.2}}",
)


def test_a_search_prunes_and_is_preempted(node: SlurmNode, sweep: Sweep, tmp_path: Path) -> None:
    """The trial that is worse than the median is stopped, a preempted one goes on, and both are as if trained alone."""
    launcher = sweep.start("-m", *SEARCH, *SLURM)
    wait_for(lambda: launcher.poll() is not None or [s for s in sweep.statuses() if s["step"] >= 3], seconds=300)
    assert launcher.poll() is None, finished(launcher)
    (preempted,) = sweep.runs
    job = job_of(preempted)
    node.ask("scancel", "--signal=USR2", job)
    node.wait_for_state(job, "PENDING")
    assert sweep.states() == ["PREEMPTED"] and sweep.statuses()[0]["step"] < 12
    node.start_now(job)
    code, out, err = finished(launcher, seconds=400)
    assert code == 0, err
    assert "4/4 trials" in out
    assert sorted(path.name for path in (preempted / "attempts").iterdir()) == ["1", "2"]

    study = find(open_storage(str(sweep.folder / "outputs" / "sweeps" / "tuned" / "study.journal")), "tuned")
    assert study is not None
    temperatures = [trial.params["rollout.temperature"] for trial in study.trials]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
    assert temperatures[3] == min(temperatures)
    assert study.best_trial.params["rollout.temperature"] == max(temperatures)

    stopped = sweep.folder / "outputs" / "runs" / study.trials[3].user_attrs["cells"][0]["run"]
    alone = [untrained(preempted, tmp_path / "preempted"), untrained(stopped, tmp_path / "stopped")]
    subprocess.run([sys.executable, "-m", "trainer", *(str(run.path) for run in alone)], cwd=ROOT, check=True)
    assert record(RunFolder(preempted)) == record(alone[0])
    curve, whole = ((path / "metrics.jsonl").read_text() for path in (stopped, alone[1].path))
    assert curve and len(curve) < len(whole) and whole.startswith(curve)
