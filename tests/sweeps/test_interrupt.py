"""Ctrl-C on a launcher that has a terminal: one question, and nothing is stopped without a clear answer."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_for

from trainer.contract.paths import ROOT

FAKE = ROOT / "tests" / "helpers" / "fake_trainer.py"
GRID = (
    "-m",
    "seed=16,2",
    "steps=6",
    "launcher.slots=1",
    "launcher.runs_per_job=1",
    f"launcher.trainer=[{FAKE}]",
    "tracking=none",
)


class Terminal:
    """A launcher that believes to be at a terminal."""

    def __init__(self, folder: Path) -> None:
        self._master, slave = pty.openpty()
        self.text, self._folder = "", folder
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "sweep.py"), *GRID], cwd=folder, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self._master, False)

    def read(self) -> str:
        """Everything that was shown so far."""
        try:
            while chunk := os.read(self._master, 65536):
                self.text += chunk.decode(errors="replace")
        except (BlockingIOError, OSError):
            pass
        return self.text

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def states(self) -> list[str]:
        found = (self._folder / "outputs" / "runs").glob("*/status.json")
        return sorted(json.loads(path.read_text())["state"] for path in found)

    def end(self) -> int:
        wait_for(lambda: self.read() is not None and self.process.poll() is not None, seconds=60)
        self.read()
        return int(self.process.returncode)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    made = Terminal(tmp_path)
    wait_for(lambda: bool(made.read()) and "RUNNING" in made.states())
    made.press(b"\x03")
    wait_for(lambda: "after their step? [l]" in made.read())
    return made


@pytest.mark.parametrize("answer", [b"l\n", b"\n", b"\x03", b"what?\n"])
def test_unless_told_otherwise_cells_are_left(terminal: Terminal, answer: bytes) -> None:
    terminal.press(answer)
    assert terminal.end() == 130
    assert "python -m sweeps attach seed-steps-6 --output" in terminal.text
    wait_for(lambda: terminal.states() == ["COMPLETED", "PLANNED"])


def test_all_cells_can_be_stopped_after_their_step(terminal: Terminal) -> None:
    terminal.press(b"a\n")
    assert terminal.end() == 130
    assert terminal.states() == ["CANCELLED", "CANCELLED"]
    assert "to go on, start the same sweep again: python sweep.py -m seed=16,2" in terminal.text
