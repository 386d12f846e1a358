"""``python -m sweeps``: looking after a sweep from its folders."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import wait_for

from sweeps.__main__ import main
from trainer.contract.paths import ROOT

FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"
Sweep = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def states(tmp_path: Path) -> list[str]:
    return sorted(
        json.loads(path.read_text())["state"] for path in (tmp_path / "outputs" / "runs").glob("*/status.json")
    )


@pytest.fixture
def slow(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A sweep of two slow cells in one job, the first of them running."""
    grid = ["-m", "seed=16,17", "steps=300", "study.name=slow", f"launcher.trainer=[{FAKE}]", "tracking=none"]
    launcher = subprocess.Popen(
        [sys.executable, str(ROOT / "sweep.py"), *grid], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: "RUNNING" in states(tmp_path) and any((tmp_path / "outputs" / "runs").glob("*/metrics.jsonl")))
    return launcher


def test_status_lists_cells_and_why_one_failed(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("-m", "seed=1,13") == 1
    capsys.readouterr()
    assert main(["status", "seed-steps-3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["level", "seed", "state", "step", "reward", "entropy", "speed", "left"]
    assert lines[1].split()[:5] == ["default", "1", "COMPLETED", "3/3", "0.200"]
    assert lines[2].endswith("RuntimeError: the loss is not finite")
    assert lines[-1] == "1 failed, 1 completed"


def test_without_a_name_the_sweeps_are_listed(
    sweep: Sweep, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("no sweep in ")
    sweep("-m", "seed=1,13")
    capsys.readouterr()
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "seed-steps-3  1 failed, 1 completed\n"


def test_the_beginning_of_a_name_will_do_where_one_sweep_has_it(sweep: Sweep, capsys: Capture) -> None:
    for name, seeds in (("alpha", "1"), ("beta", "1,2"), ("better", "2")):
        sweep("-m", f"study.name={name}", f"seed={seeds}")
    capsys.readouterr()
    assert main(["status", "al"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 completed"
    assert main(["status", "bet"]) == 2
    assert "study 'bet' may be any of beta, better: give more of the name" in capsys.readouterr().err
    assert main(["status", "beta"]) == 0, "a whole name is that sweep, whatever else begins with it"


@pytest.mark.parametrize("command", ["plan", "status", "attach", "logs", "retry", "resume", "cancel", "sync"])
def test_an_unknown_study_is_one_sentence(sweep: Sweep, capsys: Capture, command: str) -> None:
    sweep("-m", "seed=1,2")
    capsys.readouterr()
    assert main([command, "sed-steps-3"]) == 2
    assert capsys.readouterr().err.endswith("did you mean 'seed-steps-3'?\n")


def test_cancelling_stops_what_runs_and_what_waits(slow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert main(["cancel", "slow", "--output", str(tmp_path / "outputs")]) == 0
    assert slow.wait(timeout=60) == 1
    assert states(tmp_path) == ["CANCELLED", "CANCELLED"]


def test_cancelling_now_kills_the_job(slow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    start = time.monotonic()
    assert main(["cancel", "slow", "--now", "--output", str(tmp_path / "outputs")]) == 0
    assert time.monotonic() - start < 5
    assert states(tmp_path) == ["CANCELLED", "CANCELLED"]
    slow.wait(timeout=60)


def test_status_names_a_run_lost_whose_processes_have_gone(
    slow: subprocess.Popen[bytes], tmp_path: Path, capsys: Capture
) -> None:
    slow.kill()
    slow.wait()
    main(["cancel", "slow", "--now", "--output", str(tmp_path / "outputs")])
    for path in (tmp_path / "outputs" / "runs").glob("*/status.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "RUNNING"}))
        (path.parent / "STOP").unlink()
    capsys.readouterr()
    assert main(["status", "slow", "--output", str(tmp_path / "outputs")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 lost"
    assert states(tmp_path) == ["LOST", "LOST"], "it is written down, not only shown"


def test_resuming_needs_nothing_but_the_folders(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep("-m", "seed=1,13") == 1
    (failed,) = (
        path.parent for path in (tmp_path / "outputs" / "runs").glob("*/status.json") if "FAILED" in path.read_text()
    )
    (failed / "mended").touch()
    monkeypatch.chdir("/")
    output = ["--output", str(tmp_path / "outputs")]
    assert main(["resume", "seed-steps-3", *output]) == 1
    assert main(["resume", "seed-steps-3", "--retry", "failed", *output]) == 0
    assert states(tmp_path) == ["COMPLETED", "COMPLETED"]


def test_a_plan_shows_what_a_launch_would_do_and_starts_nothing(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    sweep("-m", "seed=1,13")
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert main(["plan", "seed-steps-3"]) == 0
    out = capsys.readouterr().out
    assert "1 done, 1 left alone" in out and "failed, left alone (retry=failed runs it again)" in out
    assert snapshot(tmp_path) == before


def snapshot(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_retrying_goes_on_from_the_last_step(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("-m", "seed=13") == 1
    (run_dir,) = (tmp_path / "outputs" / "runs").iterdir()
    (run_dir / "mended").touch()
    assert main(["retry", "default-steps-3", "lost"]) == 1
    assert main(["retry", "default-steps-3"]) == 0
    assert [line.split()[1] for line in (run_dir / "started").read_text().splitlines()] == ["0", "1"]


def test_attaching_takes_the_place_of_a_killed_launcher(
    slow: subprocess.Popen[bytes], tmp_path: Path, capsys: Capture
) -> None:
    slow.kill()
    slow.wait()
    output = ["--output", str(tmp_path / "outputs")]
    attached = subprocess.Popen(
        [sys.executable, "-m", "sweeps", "attach", "slow", *output], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    time.sleep(3)  # long enough to have joined
    assert main(["cancel", "slow", *output]) == 0
    out, _ = attached.communicate(timeout=60)
    assert "running" in out and attached.returncode == 1
    assert states(tmp_path) == ["CANCELLED", "CANCELLED"]


def test_attaching_starts_what_waited_for_the_launcher_and_nothing_that_ended(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("-m", "seed=1,13") == 1
    done, failed = (run_of(tmp_path, state) for state in ("COMPLETED", "FAILED"))
    waiting = json.loads((done / "status.json").read_text()) | {"state": "QUEUED", "pid": 2**22 + 1, "job": None}
    (done / "status.json").write_text(json.dumps(waiting))
    (done / "metrics.jsonl").unlink()
    assert main(["attach", "seed-steps-3"]) == 1
    assert states(tmp_path) == ["COMPLETED", "FAILED"]
    assert len((done / "started").read_text().splitlines()) == 2
    assert len((failed / "started").read_text().splitlines()) == 1


def run_of(tmp_path: Path, state: str) -> Path:
    (found,) = (
        path.parent
        for path in (tmp_path / "outputs" / "runs").glob("*/status.json")
        if json.loads(path.read_text())["state"] == state
    )
    return found


def test_logs_are_those_of_the_chosen_cells(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    sweep("-m", "seed=1,13")
    capsys.readouterr()
    assert main(["logs", "seed-steps-3", "--seed", "13", "--lines", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("==> ") == 2 and "==> default, seed 13: " in out
    assert out.rstrip().endswith("RuntimeError: the loss is not finite")
    assert main(["logs", "seed-steps-3", "--seed", "99"]) == 2
    assert "no cell is left: the levels are default, the seeds 1, 13" in capsys.readouterr().err


def test_one_cell_can_be_cancelled(slow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert main(["cancel", "slow", "--seed", "16", "--output", str(tmp_path / "outputs")]) == 0
    wait_for(lambda: states(tmp_path) == ["CANCELLED", "RUNNING"])
    main(["cancel", "slow", "--now", "--output", str(tmp_path / "outputs")])
    slow.wait(timeout=60)


def test_the_watched_table_ends_with_the_sweep(slow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "outputs")]
    watching = subprocess.Popen(
        [sys.executable, "-m", "sweeps", "status", "slow", "--watch", *output], cwd=ROOT, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert watching.stdout is not None
    while "RUNNING" not in (line := watching.stdout.readline()):
        assert line, "the table ended before a cell ran"
    assert main(["cancel", "slow", *output]) == 0
    out, _ = watching.communicate(timeout=60)
    assert out.rstrip().endswith("2 cancelled")
    slow.wait(timeout=60)


def test_gc_removes_what_no_sweep_needs_and_only_with_a_yes(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    sweep("-m", "seed=1,2", "study.name=a")
    sweep("-m", "seed=1", "study.name=a")  # narrowed: seed 2 is listed by nobody now
    kept = next(
        path for path in (tmp_path / "outputs" / "runs").iterdir() if "seed: 1" in (path / "run.yaml").read_text()
    )
    (kept / "checkpoints").mkdir()
    capsys.readouterr()
    assert main(["gc", "--checkpoints"]) == 0
    out = capsys.readouterr().out
    assert out.count("would go: ") == 3 and "no sweep lists this run" in out and "nothing was removed" in out
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 2
    assert main(["gc", "--checkpoints", "--yes"]) == 0
    assert [path.name for path in (tmp_path / "outputs" / "runs").iterdir()] == [kept.name]
    assert not (kept / "checkpoints").exists() and (kept / "metrics.jsonl").exists()
    capsys.readouterr()
    assert main(["gc", "--checkpoints"]) == 0
    assert capsys.readouterr().out.startswith("nothing to remove in ")


def test_gc_leaves_a_run_alone_that_somebody_works_on(slow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    output = tmp_path / "outputs"
    (output / "sweeps" / "slow" / "sweep.json").unlink()
    before = sorted((output / "runs").iterdir())
    assert main(["gc", "--yes", "--output", str(output)]) == 0
    assert sorted((output / "runs").iterdir()) == before
    for run_dir in before:
        (run_dir / "STOP").write_text("cancel\n")
    slow.wait(timeout=60)


def test_a_dear_sweep_needs_a_yes(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("-m", "seed=1") == 0
    for line in (tmp_path / "outputs" / "runs").glob("*/timings.jsonl"):
        line.write_text(json.dumps({"step": 0, "time": 0, "metrics": {"time/step_s": 7200.0}}) + "\n")
    capsys.readouterr()
    assert sweep("-m", "seed=1,2,3", "max_hours=1") == 2
    assert "more than max_hours=1: say that you mean it (yes=true, or --yes)" in capsys.readouterr().err
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 1, "nothing was written"
    assert sweep("-m", "seed=1,2,3", "max_hours=1", "yes=true") == 0
    assert states(tmp_path) == ["COMPLETED"] * 3


def test_sync_hands_every_run_folder_to_the_trainer(sweep: Sweep, tmp_path: Path) -> None:
    sweep("-m", "seed=1,2")
    assert main(["sync", "seed-steps-3"]) == 0
    assert len(list((tmp_path / "outputs" / "runs").glob("*/synced"))) == 2
