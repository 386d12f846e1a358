"""The README is executed: every ``bash`` command is run, made small."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SMALL = ("study=smoke", "engine=transformers", "task.num_prompts=8")
"""Overrides that shrink a command to seconds; what it exercises stays the same."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(words: list[str], folder: Path, *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A README command with this Python, its output under ``folder``."""
    if words[0] == "python":
        words = [sys.executable, *words[1:]]
    environment = os.environ | {"PYTHONPATH": str(cwd), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=1200, env=environment)


def small(words: list[str], folder: Path) -> list[str]:
    """The command with overrides that make it short; a sweep over a factor keeps two of its levels and seeds."""
    if "sweep.py" not in words or {"--cfg", "study=claims"} & set(words):
        return words
    extra = [*SMALL, f"output={folder}"]
    if any(word.startswith("factor=") for word in words):
        extra += ["surrogate.clip_high=0.2,0.4", "seed=0,1", "optim.updates_per_rollout=2", "study.name=clip_high"]
    if any(word.startswith("search=") for word in words):
        extra += ["evaluation.samples=16", "evaluation.ks=[1,16]"]  # what its objective is made of
    return [*words, *extra]


def test_make_targets_run_what_the_readme_says() -> None:
    for target, command in re.findall(r"^make (\w+).*?run: (.*)$", "\n".join(blocks("bash")), flags=re.MULTILINE):
        shown = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert command.removeprefix("python ") in shown
    for target in re.findall(r"make ([\w-]+)", README):
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_command_works(tmp_path: Path) -> None:
    ran = []
    for words in commands():
        if words[0] == "make":
            continue  # checked above; this test is run by one of them
        if words[0] == "mlflow":
            serve(words, tmp_path)
        else:
            if words[:4] == ["python", "-m", "dashboards", "report"]:
                words = [*words, "--output", str(tmp_path / "report.html")]
            if words[:4] == ["python", "-m", "dashboards", "verdicts"]:
                words = [*words, "--output", str(tmp_path / "verdicts.html")]
            if words[:3] == ["python", "-m", "sweeps"]:
                words = [*words, "--output", str(tmp_path)]
            done = run(small(words, tmp_path), tmp_path)
            assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
            assert "no report" not in done.stdout, f"{shlex.join(words)}\n{done.stdout}"
        ran.append(shlex.join(words[:4]))
    assert len(ran) >= 8
    assert "<script" in (tmp_path / "report.html").read_text()


def serve(words: list[str], folder: Path) -> None:
    """Start the MLflow UI as the README says, on another port, and open it."""
    words = [word.replace("outputs/", f"{folder}/") for word in words]
    program = [sys.executable, "-m", "mlflow", *words[1:], "--port", "5917"]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(300):
            time.sleep(1)
            try:
                with urllib.request.urlopen("http://127.0.0.1:5917", timeout=5) as page:
                    assert b"mlflow" in page.read().lower()
                    return
            except OSError:
                assert process.poll() is None, "the MLflow UI stopped"
        pytest.fail("the MLflow UI did not answer within 300 s")
    finally:
        os.killpg(process.pid, 15)


def test_links_exist() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(
    "maker", ["make_commands", "make_glossary", pytest.param("make_methods", marks=pytest.mark.slow)]
)
def test_generated_pages_are_up_to_date(maker: str) -> None:
    spec = importlib.util.spec_from_file_location(maker, ROOT / "docs" / f"{maker}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.pages().items():
        assert path.read_text() == text, f"run `python docs/{maker}.py`: {path.name} is out of date"


def test_readme_stays_short() -> None:
    assert README.count("\n") < 250
