"""Names in a configuration stay names: nothing is written outside the output folder; Submitit's files are private."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

OUTSIDE = "../../../outside"

NAMES = [
    ["-m", "factor=clip_high", f"factor.name={OUTSIDE}", "surrogate.clip_high=0.3", "seed=1"],
    ["-m", "factor=clip_high", "factor.name=/", "surrogate.clip_high=0.3", "seed=1"],
    ["-m", "factor=clip_high", "factor.name=..", "surrogate.clip_high=0.3", "seed=1"],
    [f"tracking.run_name={OUTSIDE}", f"tracking.experiment={OUTSIDE}"],
    [f"++signature={OUTSIDE}"],
    [f"model.path={OUTSIDE}"],
]


def written(place: Path) -> set[Path]:
    """Every file, and every folder that holds none."""
    return {path.relative_to(place) for path in place.rglob("*") if path.is_file() or not any(path.iterdir())}


@pytest.mark.parametrize("arguments", NAMES, ids=" ".join)
def test_no_name_leads_out_of_the_output_folder(
    sweep: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: list[str], arguments: list[str]
) -> None:
    deep = tmp_path / "a" / "b" / "c" / "d"  # three folders up from its runs is still ours to look at
    deep.mkdir(parents=True)
    quoted = str(deep / "outputs").replace("'", "\\'")
    sweep(*arguments, base=[*fake, f"output='{quoted}'"])
    assert written(tmp_path)
    assert all(path.is_relative_to("a/b/c/d/outputs") for path in written(tmp_path)), written(tmp_path)


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "++hydra.sweep.subdir", "hydra.output_subdir"])
def test_hydra_makes_no_folders_of_its_own(
    key: str, sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(f"{key}=../outside") == 2
    assert f"{key}=../outside cannot be used" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [] and not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("name", ["../up", "/root", "a/b", "..", ".hidden", "a\nb", "", "x" * 300])
def test_a_study_name_that_is_no_folder_name_is_refused(
    name: str, sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(f"study.name='{name}'") == 2
    error = capsys.readouterr().err
    assert "study.name=" in error and "cannot be used" in error
    assert list(tmp_path.iterdir()) == []


def test_what_submitit_unpickles_lies_in_a_folder_for_this_user_alone(
    sweep: Callable[..., int], tmp_path: Path
) -> None:
    assert sweep() == 0
    pickles = list((tmp_path / "outputs").rglob("*.pkl"))
    assert pickles, "Submitit's own files"
    for path in pickles:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert "jobs" in path.parts, "and none of them in a run folder"
