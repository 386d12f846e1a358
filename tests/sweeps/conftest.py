"""Sweeps against a fake trainer: composing is real, Submitit is real, only the training is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sweeps.cli.command import main
from sweeps.compose.compose import Composed, compose
from sweeps.grid.cells import Cell, cells, resolve_all
from trainer.contract.paths import ROOT

HOSTILE = "a b 'c' \"d\" ü 日本 $HOME;#&=,[x]"
"""A folder name with everything that shells, URIs, YAML and Hydra give a meaning to."""

FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """Every test of the queue works below a folder with a hostile name."""
    folder = tmp_path / HOSTILE
    folder.mkdir()
    return folder


class Clock:
    """Unix time as ``sweeps`` sees it; it stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces ``time.time`` in this process."""
    made = Clock()
    monkeypatch.setattr("time.time", made)
    return made


@pytest.fixture
def fake() -> list[str]:
    """Overrides that put the fake trainer in the place of the real one and leave MLflow out."""
    return [f"launcher.trainer=[{FAKE}]", "tracking=none", "steps=3"]


@pytest.fixture
def sweep(tmp_path: Path, fake: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``sweep("-m", "factor=clip_high")`` runs the command line here, below ``tmp_path``; returns the exit code."""

    def run(*arguments: str, base: Sequence[str] = tuple(fake)) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sweeps.terminal.watch.LOOK_EVERY_S", 0.05)
        # One slot unless a test says otherwise: what it expects must not depend on the machine's cores.
        slots = (
            []
            if any(text.startswith(("launcher.slots", "launcher=", "--")) for text in arguments)
            else ["launcher.slots=1"]
        )
        monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments, *slots, *base])
        try:
            return main()
        except SystemExit as leaving:
            return int(leaving.code or 0)

    return run


@pytest.fixture
def make_cells(tmp_path: Path) -> Callable[..., list[Cell]]:
    """Cells of a sweep given as lists of overrides."""

    def make(*batch: Sequence[str]) -> list[Cell]:
        quoted = str(tmp_path / "outputs").replace("'", "\\'")
        output = f"output='{quoted}'"
        trainer = f"launcher.trainer=['{FAKE}']"
        composed = (
            Composed(config=compose([*overrides, output, trainer]), overrides=tuple(overrides)) for overrides in batch
        )
        return cells(resolve_all(composed))

    return make
