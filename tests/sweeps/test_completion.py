"""Completion in bash, from a folder and with a Python whose paths have spaces."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sweeps.cli.command import main
from sweeps.cli.completion import MENDED


def test_a_path_with_spaces_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sweep.py", "-sc", "install=bash"])
    main()
    script = capsys.readouterr().out
    assert all(line not in script and instead in script for line, instead in MENDED.items())
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "sweep.py").write_text("import hydra\n")
    (folder / "python").write_text('#!/bin/sh\necho "factor=clip_high factor=clip_low"\n')
    (folder / "python").chmod(0o755)
    typed = (
        'COMP_LINE="python sweep.py factor=clip_h" COMP_POINT=29 COMP_CWORD=2\nhydra_bash_completion\necho "$COMPREPLY"'
    )
    ran = subprocess.run(
        ["bash", "-c", f'PATH="$PWD:$PATH"\n{script}\n{typed}'], cwd=folder, capture_output=True, text=True, check=True
    )
    assert (ran.stdout, ran.stderr) == ("factor=clip_high\n", "")
