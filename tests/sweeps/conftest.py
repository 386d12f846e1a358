"""Sweeps against a fake trainer: composing is real, Submitit is real, only the training is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sweeps.cells import Cell, cells, members
from sweeps.command import main
from sweeps.compose import Composed, compose

FAKE = Path(__file__).with_name("fake_trainer.py")


@pytest.fixture
def fake() -> list[str]:
    """Overrides that put the fake trainer in the place of the real one and leave MLflow out."""
    return [f"launcher.trainer=[{FAKE}]", "tracking=none", "steps=3"]


@pytest.fixture
def sweep(tmp_path: Path, fake: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``sweep("-m", "factor=clip_high")`` runs the command line here, below ``tmp_path``; returns the exit code."""

    def run(*arguments: str, base: Sequence[str] = tuple(fake)) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sweeps.watch.LOOK_EVERY_S", 0.05)
        monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments, *base])
        try:
            return main()
        except SystemExit as leaving:
            return int(leaving.code or 0)

    return run


@pytest.fixture
def make_cells(tmp_path: Path) -> Callable[..., list[Cell]]:
    """Cells of a sweep given as lists of overrides."""

    def make(*batch: Sequence[str]) -> list[Cell]:
        output = f"output='{tmp_path / 'outputs'}'"
        trainer = f"launcher.trainer=['{FAKE}']"
        composed = (
            Composed(config=compose([*overrides, output, trainer]), overrides=tuple(overrides)) for overrides in batch
        )
        return cells(members(composed))

    return make
