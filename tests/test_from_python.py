"""docs/python.md and its notebook are executed as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fake_study import FakeSpec, write_study

import sweeps
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError

GUIDE = (ROOT / "docs" / "python.md").read_text()
NOTEBOOK = json.loads((ROOT / "docs" / "python.ipynb").read_text())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_study(tmp_path_factory.mktemp("store"), FakeSpec(levels=("0.2", "0.5"), seeds=2, steps=12))


def executed(code: str, folder: Path, uri: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": uri}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def test_the_notebook_runs_from_top_to_bottom(store: str, tmp_path: Path) -> None:
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    executed("\n\n".join(cells), tmp_path, store)
    assert len(pd.read_parquet(tmp_path / "curves.parquet")) == 2 * 2 * 12
    assert NOTEBOOK["nbformat"] == 4 and not any(cell.get("outputs") for cell in NOTEBOOK["cells"])


def test_every_frame_of_the_guide_has_its_columns(store: str, tmp_path: Path) -> None:
    rows = re.findall(r"^\| `study\.(\w+)(\(\w*\))?` \| .*? \| (.*) \|$", GUIDE, flags=re.MULTILINE)
    assert len(rows) == 8
    code = "import dashboards, json; study = dashboards.load('clip_high'); print(json.dumps({"
    code += ", ".join(f"{name!r}: list(study.{name}{'()' if call else ''})" for name, call, _ in rows) + "}))"
    columns = json.loads(executed(code, tmp_path, store))
    for name, _, words in rows:
        named = set(re.findall(r"`(\w+)`", words))
        assert named <= set(columns[name]), name


def test_the_commands_of_the_guide_run(store: str, tmp_path: Path) -> None:
    lines = re.search(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    assert lines is not None
    commands = [shlex.split(line, comments=True) for line in lines[1].splitlines()]
    assert len(commands) == 4
    for words in commands[:2]:
        code = f"import sys; from dashboards.__main__ import main; sys.exit(main({words[3:]!r}))"
        executed(code, tmp_path, store)
    assert (tmp_path / "outputs" / "exports" / "clip_high" / "metrics.csv").is_file()
    assert (tmp_path / "data" / "tokens.parquet").is_file()


@pytest.mark.slow  # a run of the real model
def test_the_five_lines_run(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert code is not None and len([line for line in code[1].splitlines() if line]) == 5
    out = executed(code[1], tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    assert "policy/entropy" in out and len(list((tmp_path / "outputs" / "runs").iterdir())) == 1


def test_a_run_that_cannot_be_is_refused_before_it_starts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="steps"):
        sweeps.run("steps=-1", f"output={tmp_path}/out")
    with pytest.raises(ConfigError, match="did you mean"):
        sweeps.run("optim.lrr=1", f"output={tmp_path}/out")
    assert not (tmp_path / "out").exists() and capfd.readouterr().out == ""
