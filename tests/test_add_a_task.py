"""The guide to a task of one's own, followed to the letter in a copy of the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.contract.paths import ROOT

GUIDE = (ROOT / "docs" / "add_a_task.md").read_text()
FILES = {"trainer/tasks/sums.py": "python", "conf/task/sums.yaml": "yaml", "tests/trainer/tasks/test_sums.py": "python"}


def run(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True, check=False)


@pytest.mark.slow  # a copy of the checkout, a test run and a training run in it
def test_the_guide_works_as_written(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("trainer", "sweeps", "dashboards", "conf", "tests"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sweep.py", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout / name)
    for path, language in FILES.items():
        found = re.search(rf"`{re.escape(path)}`.*?```{language}\n(.*?)```", GUIDE, re.DOTALL)
        assert found is not None, path
        (checkout / path).write_text(found[1])
    command = re.search(r"`python (-m pytest tests/contract[^`]*)`", GUIDE)
    assert command is not None
    tested = run(checkout, *command[1].split(), "tests/trainer/tasks/test_sums.py")
    assert tested.returncode == 0, tested.stdout[-3000:]
    assert "no tests" not in tested.stdout
    by_hand = run(checkout, "-m", "pytest", "tests/trainer/tasks/test_sums.py")
    assert by_hand.returncode == 0, by_hand.stdout[-3000:]
    trained = run(checkout, "sweep.py", "task=sums", "study=smoke", "engine=transformers", "task.number_max=30")
    assert trained.returncode == 0 and "[1/1] completed" in trained.stdout, trained.stdout + trained.stderr
    refused = run(checkout, "sweep.py", "task=sums", "task.num_prompts=1000")
    assert refused.returncode == 2 and "there are 190 problems" in refused.stderr
