"""A queued cell is what it was when it was queued, whatever becomes of the YAMLs it was composed from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from trainer.contract.paths import ROOT

FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The program in a folder of its own, so that its configuration can be edited."""
    folder = tmp_path / "program"
    for name in ("conf", "sweeps", "trainer"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    shutil.copy(ROOT / "sweep.py", folder)
    return folder


def wait_for(done: list[str], runs: Path) -> None:
    end = time.monotonic() + 60
    while sorted(json.loads(path.read_text())["state"] for path in runs.glob("*/status.json")) != done:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_yaml_that_is_edited_while_a_cell_waits_changes_the_next_sweep_only(copy: Path) -> None:
    command = [sys.executable, "sweep.py", "-m", "seed=16,1", "steps=5", "study.name=edited", "tracking=none"]
    command += [f"launcher.trainer=['{FAKE}']", "launcher.slots=1", "launcher.runs_per_job=1"]
    runs = copy / "outputs" / "runs"
    launcher = subprocess.Popen(command, cwd=copy, stdout=subprocess.DEVNULL)
    wait_for(["QUEUED", "RUNNING"], runs)
    adamw = copy / "conf" / "optim" / "adamw.yaml"
    before = yaml.safe_load(next(runs.glob("*/run.yaml")).read_text())["optim"]["lr"]
    adamw.write_text(adamw.read_text() + "\nlr: 0.125\n")
    assert launcher.wait(timeout=60) == 0
    first = {path.parent.name: yaml.safe_load(path.read_text())["optim"]["lr"] for path in runs.glob("*/run.yaml")}
    assert set(first.values()) == {before} and before != 0.125
    started = [path.parent.name for path in runs.glob("*/started")]
    assert sorted(started) == sorted(first)

    again = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    both = {path.parent.name: yaml.safe_load(path.read_text())["optim"]["lr"] for path in runs.glob("*/run.yaml")}
    assert len(both) == 4 and {name: both[name] for name in first} == first
    assert {both[name] for name in both.keys() - first.keys()} == {0.125}
