"""A search whose driver, or jobs, or both are killed, and which is then started again: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from waiting import wait_for

from sweeps.search.space import override
from sweeps.search.store import find, open_storage
from trainer.contract.paths import ROOT

LEARNER = ROOT / "tests" / "helpers" / "fake_learner.py"
TRIALS, STEPS = 5, 6


def start(output: Path, step_s: float = 0.25) -> subprocess.Popen[str]:
    command = [sys.executable, "sweep.py", "-m", "search=clip", f"search.n_trials={TRIALS}", f"steps={STEPS}"]
    settings = ["tracking=none", "launcher.slots=2", "search.confirm_seeds=[]", "study.name=s", "search.preset=false"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"FAKE_STEP_S": str(step_s)}
    place = [f"launcher.trainer=[{LEARNER}]", override("output", str(output))]
    return subprocess.Popen([*command, *settings, *place], cwd=ROOT, text=True, env=environment, **pipes)  # type: ignore[call-overload]


def running(output: Path) -> list[Path]:
    """Runs in which a trainer has done a step, and has more to do."""
    found = []
    for path in output.glob("runs/*/status.json"):
        status = json.loads(path.read_text())
        if status["state"] == "RUNNING" and 1 <= status["step"] < STEPS - 1:
            found.append(path.parent)
    return found


def kill_job(run_dir: Path) -> None:
    """The trainer, and the job it belongs to: its whole session."""
    os.killpg(os.getsid(json.loads((run_dir / "status.json").read_text())["pid"]), signal.SIGKILL)


def steps_of(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("victims", ["driver", "job", "both"])
def test_nothing_is_lost_and_nothing_trained_twice(tmp_path: Path, victims: str) -> None:
    output = tmp_path / "outputs"
    first = start(output)
    wait_for(lambda: running(output) or first.poll() is not None)
    assert first.poll() is None, first.communicate()
    hit = running(output)[0]
    if victims != "job":
        first.kill()
        first.communicate()
    if victims != "driver":
        kill_job(hit)
    if victims != "job":
        again = start(output)
        second = start(output)  # of two drivers at once, one has to give way
        outputs = [process.communicate(timeout=120) for process in (again, second)]
        codes = sorted([again.returncode, second.returncode])
        assert codes in ([0, 0], [0, 2]), outputs
        if codes == [0, 2]:
            assert any("is being run by another process" in err for _, err in outputs)
    else:
        out, err = first.communicate(timeout=120)
        assert first.returncode == 0, out + err
    check(output)


def check(output: Path) -> None:
    """The totals are right, every trial has ended, and every run was trained once, from step to step."""
    study = find(open_storage(str(output / "sweeps" / "s" / "study.journal")), "s")
    assert study is not None
    assert len(study.trials) == TRIALS
    assert {trial.state for trial in study.trials} <= {
        optuna.trial.TrialState.COMPLETE,
        optuna.trial.TrialState.PRUNED,
    }
    listed = {cell["run"] for trial in study.trials for cell in trial.user_attrs["cells"]}
    assert listed == {path.name for path in (output / "runs").iterdir()}
    for trial in study.trials:
        assert trial.user_attrs["steps_run"] == sum(
            len(steps_of(output / "runs" / cell["run"])) for cell in trial.user_attrs["cells"]
        )
    for run_dir in (output / "runs").iterdir():
        assert steps_of(run_dir) == list(range(len(steps_of(run_dir))))
        starts = [int(line.split()[1]) for line in (run_dir / "started").read_text().splitlines()]
        assert starts == sorted(set(starts))  # each start went on where the last one had got to


@pytest.mark.slow
def test_ctrl_c_leaves_what_runs_and_the_next_start_takes_it_up(tmp_path: Path) -> None:
    output = tmp_path / "outputs"
    first = start(output)
    wait_for(lambda: running(output))
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=30)
    assert first.returncode == 130, out + err
    assert "python -m sweeps attach s" in out
    command = [sys.executable, "-m", "sweeps", "attach", "s", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    check(output)


@pytest.mark.slow
def test_a_cancelled_search_asks_no_more_and_goes_on_when_started_again(tmp_path: Path) -> None:
    output = tmp_path / "outputs"
    first = start(output, step_s=3.0)  # a busy machine takes seconds to start the command that cancels
    wait_for(lambda: running(output))
    sweeps = [sys.executable, "-m", "sweeps"]
    place = ["s", "--output", str(output)]
    assert subprocess.run([*sweeps, "cancel", *place], cwd=ROOT, timeout=60).returncode == 0
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130, out + err
    shown = subprocess.run([*sweeps, "status", *place], cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert "CANCELLED" in shown and "trial 0" in shown
    done = subprocess.run([*sweeps, "resume", *place], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    check(output)
