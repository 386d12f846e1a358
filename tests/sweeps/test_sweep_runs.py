"""Whole sweeps through Hydra and Submitit with the fake trainer: what runs, what does not, what is said."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from waiting import wait_for

from sweeps.cli.help import QUESTIONS
from sweeps.compose.compose import groups
from trainer.contract.identity import signature
from trainer.contract.paths import ROOT

Sweep = Callable[..., int]
Capture = pytest.CaptureFixture[str]
FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"


def statuses(tmp_path: Path) -> dict[str, str]:
    found = sorted((tmp_path / "outputs" / "runs").glob("*/status.json"))
    return {path.parent.name: json.loads(path.read_text())["state"] for path in found}


def starts(tmp_path: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in (tmp_path / "outputs" / "runs").glob("*/started"))


def sweep_document(tmp_path: Path, study: str) -> dict[str, list[dict[str, object]]]:
    document: dict[str, list[dict[str, object]]] = json.loads(
        (tmp_path / "outputs" / "sweeps" / study / "sweep.json").read_text()
    )
    return document


def test_one_run(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep() == 0
    assert list(statuses(tmp_path).values()) == ["COMPLETED"]
    assert re.search(r"\[1/1\] completed default, seed 0 +reward 0\.000 to 0\.200 +entropy", capsys.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"], "Hydra must leave no folder of its own"


def test_a_factor_runs_every_level_and_seed_once(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("-m", "factor=clip_high") == 0
    cells = sweep_document(tmp_path, "clip_high-steps-3")["cells"]
    assert sorted((cell["level"], cell["seed"]) for cell in cells) == [
        (level, seed) for level in ("0.02", "0.05", "0.2", "0.5") for seed in (0, 1, 2)
    ]  # type: ignore[type-var]
    assert set(statuses(tmp_path)) == {cell["signature"] for cell in cells}
    assert starts(tmp_path) == 12


def test_the_command_line_beats_the_factor(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("-m", "factor=clip_high", "surrogate.clip_high=0.9,0.1", "seed=7", "optim.updates_per_rollout=2") == 0
    (document,) = (tmp_path / "outputs" / "sweeps").glob("*/sweep.json")
    cells = json.loads(document.read_text())["cells"]
    assert [(cell["level"], cell["level_index"], cell["seed"]) for cell in cells] == [("0.9", 0, 7), ("0.1", 1, 7)]


def test_a_run_folder_is_named_by_its_content(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("-m", "optim.lr=1e-4,3e-4", "seed=range(2)") == 0
    for path in (tmp_path / "outputs" / "runs").iterdir():
        document = yaml.safe_load((path / "run.yaml").read_text())
        assert signature(document) == document["signature"] == path.name
        assert document["study"] | {"level": None} == {
            "name": "lr-steps-3", "level": None, "label": document["study"]["level"],
            "level_index": document["study"]["level_index"],
        }  # fmt: skip


def test_a_second_invocation_runs_only_what_is_missing(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("-m", "seed=0,1") == 0
    assert sweep("-m", "seed=0,1") == 0
    assert starts(tmp_path) == 2
    assert "2 done; nothing to run" in capsys.readouterr().out
    assert sweep("-m", "seed=0,1,2") == 0
    assert starts(tmp_path) == 3


def test_a_failed_cell_is_named_and_its_siblings_go_on(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("-m", "seed=1,13,2") == 1
    assert sorted(statuses(tmp_path).values()) == ["COMPLETED", "COMPLETED", "FAILED"]
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("failed")]
    assert line.startswith("failed: default, seed 13: RuntimeError: the loss is not finite; see ")
    assert "RuntimeError" in Path(line.rpartition("see ")[2]).read_text()


def test_a_failed_cell_runs_again_only_on_demand(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("-m", "seed=1,13") == 1
    assert sweep("-m", "seed=1,13") == 1
    assert starts(tmp_path) == 2
    (failed,) = [name for name, state in statuses(tmp_path).items() if state == "FAILED"]
    (tmp_path / "outputs" / "runs" / failed / "mended").touch()
    assert sweep("-m", "seed=1,13", "retry=failed") == 0
    assert starts(tmp_path) == 3


def test_a_run_goes_on_from_where_it_was(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("-m", "seed=13") == 1
    (run_dir,) = (tmp_path / "outputs" / "runs").iterdir()
    (run_dir / "mended").touch()
    assert sweep("-m", "seed=13", "retry=all") == 0
    assert [line.split()[1] for line in (run_dir / "started").read_text().splitlines()] == ["0", "1"]


def test_a_plan_starts_and_writes_nothing(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("-m", "factor=clip_high", "plan=true") == 0
    out = capsys.readouterr().out
    assert "clip_high-steps-3: 12 cells (4 levels x 3 seeds); 12 new" in out
    assert "estimated time: no earlier run to estimate from" in out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_what_is_done_and_how_long_the_rest_takes(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("-m", "seed=1,13") == 1
    before = sorted(path for path in tmp_path.rglob("*"))
    capsys.readouterr()
    assert sweep("-m", "seed=1,13,2,3", "plan=true") == 0
    out = capsys.readouterr().out
    assert "2 new, 1 done, 1 left alone" in out
    assert "failed, left alone (retry=failed runs it again)" in out
    assert re.search(r"estimated time: about \d s on 1 slot \(\d s of jobs in all\), from earlier runs", out)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_warnings_are_said_once(sweep: Sweep, capsys: Capture) -> None:
    assert sweep("-m", "optim.lr=1e-3,2e-3,3e-3") == 0
    assert capsys.readouterr().err.splitlines() == ["warning: clip settings are inert"]


def test_each_cell_runs_with_its_own_frozen_values(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("-m", "surrogate.clip_high=0.2,0.7", "optim.updates_per_rollout=2") == 0
    first_lines = [path.read_text().splitlines()[0] for path in (tmp_path / "outputs" / "runs").glob("*/metrics.jsonl")]
    # The fake trainer starts at entropy 0.3 + clip_high / 10.
    assert sorted(json.loads(line)["metrics"]["policy/entropy"] for line in first_lines) == pytest.approx([0.32, 0.37])


def command(*arguments: str) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "sweep.py"),
        *arguments,
        "launcher.slots=1",
        f"launcher.trainer=[{FAKE}]",
        "tracking=none",
    ]


def test_two_launchers_run_each_cell_once(tmp_path: Path) -> None:
    grid = command("-m", "seed=1,2,3,4", "steps=5", "launcher.runs_per_job=1")
    both = [subprocess.Popen(grid, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [launcher.wait(timeout=120) for launcher in both] == [0, 0]
    assert starts(tmp_path) == 4


def test_jobs_outlive_a_killed_launcher_and_are_joined(tmp_path: Path, sweep: Sweep, capsys: Capture) -> None:
    launcher = subprocess.Popen(command("-m", "seed=16", "steps=6"), cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for(lambda: starts(tmp_path) == 1)
    launcher.kill()
    launcher.wait()
    assert sweep("-m", "seed=16", "steps=6", base=[f"launcher.trainer=[{FAKE}]", "tracking=none"]) == 0
    assert "1 running; nothing to run" in capsys.readouterr().out
    assert list(statuses(tmp_path).values()) == ["COMPLETED"]
    assert starts(tmp_path) == 1


def test_an_interrupt_without_a_terminal_leaves_running_cells(tmp_path: Path) -> None:
    launcher = subprocess.Popen(
        command("-m", "seed=16,2", "steps=5", "launcher.runs_per_job=1"), cwd=tmp_path, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: starts(tmp_path) == 1)
    launcher.send_signal(signal.SIGINT)
    out, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert "to go on, start the same sweep again: python sweep.py -m seed=16,2" in out
    wait_for(lambda: "COMPLETED" in statuses(tmp_path).values())
    assert starts(tmp_path) == 1, "a waiting cell does not start without its launcher"


def test_a_job_killed_with_everything_is_lost_and_taken_up_again(tmp_path: Path) -> None:
    grid = command("-m", "seed=16", "steps=8")
    launcher = subprocess.Popen(grid, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: starts(tmp_path) == 1 and "RUNNING" in statuses(tmp_path).values())
    (run_dir,) = (tmp_path / "outputs" / "runs").iterdir()
    wait_for(lambda: json.loads((run_dir / "status.json").read_text())["step"] >= 2)
    os.killpg(os.getpgid(int((run_dir / "started").read_text().split()[0])), signal.SIGKILL)
    _, error = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert "lost: default, seed 16: its process ended without a word" in error
    assert list(statuses(tmp_path).values()) == ["LOST"]
    assert subprocess.run(grid, cwd=tmp_path, stdout=subprocess.DEVNULL).returncode == 0
    assert int((run_dir / "started").read_text().splitlines()[1].split()[1]) >= 2, "it goes on, it does not begin again"


def test_help_fits_a_screen_and_asks_a_question_for_every_group(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("--help") == 0
    out = capsys.readouterr().out
    assert "python sweep.py -m factor=clip_high" in out
    assert len(out.splitlines()) < 60
    for group, names in groups().items():
        assert QUESTIONS[group]
        choices = ", ".join(rf"{re.escape(name)}[+*]?" for name in names)  # marks: released, reconstructed
        assert re.search(rf"^  {group} +{re.escape(QUESTIONS[group])} +{choices}$", out, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_can_be_shown(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, str(ROOT / "sweep.py"), "--cfg", "job", "optim.lr=0.5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert yaml.safe_load(shown.stdout)["optim"]["lr"] == 0.5


def test_the_command_works_from_any_folder_and_multirun_may_stand_anywhere(tmp_path: Path) -> None:
    done = subprocess.run([*command("seed=3,4", "steps=2", "-m")], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, len(statuses(tmp_path))) == (0, 2)
