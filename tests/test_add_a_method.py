"""The newcomer's guide, followed to the letter in a copy of the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.contract.paths import ROOT

GUIDE = (ROOT / "docs" / "add_a_method.md").read_text()
FILES = {
    "trainer/objective/weights/first_token.py": "python",
    "conf/weight/first_token.yaml": "yaml",
    "conf/method/first_token.yaml": "yaml",
}


@pytest.mark.slow  # a copy of the checkout, and a test run in it
def test_the_guide_works_as_written(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    for name in ("trainer", "sweeps", "conf", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sweep.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for path, language in FILES.items():
        found = re.search(rf"`{re.escape(path)}`.*?```{language}\n(.*?)```", GUIDE, re.DOTALL)
        assert found is not None, path
        (copy / path).write_text(found[1])
    command = [sys.executable, "-m", "pytest", "-q", "tests/contract", "-k", "first_token"]
    ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert ran.stdout.count(".") >= 10, ran.stdout
    for overrides in (["weight=[first_token]"], ["method=first_token"]):
        shown = subprocess.run(
            [sys.executable, "sweep.py", "--cfg", "job", *overrides],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "FirstToken" in shown.stdout, shown.stderr
