"""A text on the command line stays one, however much it looks like a number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.compose.quoting import is_string, quote_strings
from sweeps.runs.run_folder import read_run


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("study.name=1_000", "study.name='1_000'"),
        ("study.name=1e5", "study.name='1e5'"),
        ("study.name=true", "study.name='true'"),
        ("study.name=2024-01-01", "study.name=2024-01-01"),
        ("study.name='1e5'", "study.name='1e5'"),
        ("study.name=null", "study.name=null"),
        ("model.revision=38930e8", "model.revision='38930e8'"),
        ("model.revision=1234567,main,nan", "model.revision='1234567',main,'nan'"),
        ("tracking.run_name=12", "tracking.run_name='12'"),
        ("+tracking.tags.batch=7", "+tracking.tags.batch='7'"),
        ("launcher.partition=1", "launcher.partition='1'"),
        ("optim.lr=1e5", "optim.lr=1e5"),
        ("seed=1,2", "seed=1,2"),
        ("'seed=range(3)'", "'seed=range(3)'"),
        ("launcher.extra={a: 1}", "launcher.extra={a: 1}"),
        ("../up.x=1", "../up.x=1"),
        ("-m", "-m"),
        ("~regularizer", "~regularizer"),
    ],
)
def test_what_is_a_text_is_quoted_and_nothing_else(word: str, expected: str) -> None:
    assert quote_strings(word) == expected


def test_no_number_and_no_truth_is_called_a_text() -> None:
    assert not any(
        map(
            is_string,
            ("steps", "optim.lr", "surrogate.clip_high", "plan", "rollout.group_size", "weight.sign.positive"),
        )
    )


@pytest.mark.parametrize("name", ["1_000", "1e5", "on", "38930e831968", "2024-01-01"])
def test_a_study_and_a_run_may_be_called_anything(name: str, sweep: Callable[..., int], tmp_path: Path) -> None:
    assert sweep(f"study.name={name}", f"tracking.run_name={name}", f"model.revision={name}") == 0
    assert (tmp_path / "outputs" / "sweeps" / name / "sweep.json").is_file()
    (path,) = (tmp_path / "outputs" / "runs").glob("*/run.yaml")
    run = read_run(path.parent)
    assert (run["study"]["name"], run["tracking"]["run_name"], run["model"]["revision"]) == (name, name, name)
