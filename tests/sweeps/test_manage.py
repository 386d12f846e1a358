"""``python -m sweeps``: looking after a sweep from its folders."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.__main__ import main
from sweeps.worker import ROOT

FAKE = Path(__file__).with_name("fake_trainer.py")
Sweep = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def states(tmp_path: Path) -> list[str]:
    return sorted(
        json.loads(path.read_text())["state"] for path in (tmp_path / "outputs" / "runs").glob("*/status.json")
    )


@pytest.fixture
def slow(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A sweep of two slow cells in one job, the first of them running."""
    grid = ["-m", "seed=16,17", "steps=30", "study.name=slow", f"launcher.trainer=[{FAKE}]", "tracking=none"]
    launcher = subprocess.Popen(
        [sys.executable, str(ROOT / "sweep.py"), *grid], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: "RUNNING" in states(tmp_path) and any((tmp_path / "outputs" / "runs").glob("*/metrics.jsonl")))
    return launcher


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


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
    sweep("-m", "seed=1,2")
    capsys.readouterr()
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "seed-steps-3\n"


@pytest.mark.parametrize("command", ["status", "cancel", "resume", "sync"])
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


def test_sync_hands_every_run_folder_to_the_trainer(sweep: Sweep, tmp_path: Path) -> None:
    sweep("-m", "seed=1,2")
    assert main(["sync", "seed-steps-3"]) == 0
    assert len(list((tmp_path / "outputs" / "runs").glob("*/synced"))) == 2
