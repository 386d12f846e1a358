"""Runs of an older version are named, not silently left behind; nothing takes them for new ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.__main__ import main
from sweeps.plan.schema import outdated, outdated_line
from sweeps.runs.run_folder import read_run
from trainer.contract.identity import SCHEMA
from trainer.contract.status import write_status

SAID = "2 finished runs of schema 1 (another version of this program; now 2) in "


@pytest.fixture
def old(sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The output folder of a sweep of two runs, as schema 1 left it."""
    assert sweep("-m", "seed=0,1", "study.name=old") == 0
    for path in (tmp_path / "outputs" / "runs").glob("*/run.yaml"):
        first, rest = path.read_text().split("\n", 1)
        assert first == f"schema: {SCHEMA}"
        path.write_text(rest)
    capsys.readouterr()
    return tmp_path / "outputs"


def test_current_runs_are_not_mentioned(sweep: Callable[..., int], tmp_path: Path) -> None:
    assert sweep() == 0
    assert outdated_line(tmp_path / "outputs") is None
    assert outdated_line(tmp_path / "nowhere") is None


def test_the_schema_is_in_every_run(sweep: Callable[..., int], tmp_path: Path) -> None:
    assert sweep() == 0
    (path,) = (tmp_path / "outputs" / "runs").glob("*")
    assert read_run(path)["schema"] == SCHEMA == 2


def test_finished_runs_of_another_schema_are_named_wherever_somebody_looks(
    old: Path, sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("plan=true", "seed=5") == 0
    assert SAID in capsys.readouterr().out
    assert sweep("seed=5") == 0
    assert SAID in capsys.readouterr().out
    for command in (["status"], ["status", "old"]):
        assert main([*command, "--output", str(old)]) == 0
        assert SAID in capsys.readouterr().out


def test_only_what_is_finished_is_counted(old: Path) -> None:
    first = next(iter(outdated(old)))
    write_status(first, "FAILED")
    line = outdated_line(old)
    assert line is not None and line.startswith("1 finished run of schema 1 ")


def test_an_old_study_is_not_taken_up_but_can_be_looked_at(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "old", "--output", str(old)]) == 2
    said = capsys.readouterr().err
    assert "its runs are of schema 1" in said and "start it again: python sweep.py -m" in said
    assert main(["status", "old", "--output", str(old)]) == 0


def test_they_are_removed_on_request_only(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--yes", "--output", str(old)]) == 0
    assert len(outdated(old)) == 2
    assert main(["gc", "--outdated", "--output", str(old)]) == 0
    assert capsys.readouterr().out.count("of another version") == 2
    assert len(outdated(old)) == 2
    assert main(["gc", "--outdated", "--yes", "--output", str(old)]) == 0
    assert outdated(old) == {}
