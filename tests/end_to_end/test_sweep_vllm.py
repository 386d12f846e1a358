"""Two cells through everything: Hydra, Submitit, the trainer, vLLM, MLflow, the table, the report, a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = (
    *("-m", "factor=clip_high", "study=smoke", "surrogate.clip_high=0.2,0.5", "seed=3"),
    *("optim.updates_per_rollout=2", "optim.lr=0.003"),
)


def sweep(output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "sweep.py", *COMMAND, f"output='{output}'"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700, env=os.environ)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_cells_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    output = tmp_path / "out puts"  # a space, as people have them
    done = sweep(output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mlflow ui" in done.stdout and "report.html" in done.stdout
    runs = sorted((output / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert json.loads((run / "status.json").read_text())["state"] == "COMPLETED"
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert steps == [0, 1, 2]
    first, second = ((run / "metrics.jsonl").read_text().splitlines()[0] for run in runs)
    assert reward(first) == reward(second)  # the same seed: the same prompts and the same noise
    check_store(output)
    report = next(output.glob("sweeps/*/report.html"))
    assert "Upper clip threshold" in page_text(report)

    again = sweep(output)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to run" in again.stdout


def reward(line: str) -> float:
    value: float = json.loads(line)["metrics"]["rollout/reward"]
    return value


def check_store(output: Path) -> None:
    """One parent with the report, two nested cells with parameters, tags, step metrics and samples."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    experiment = client.get_experiment_by_name("rlvr-entropy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "sweep"]
    cells = [run for run in runs if run.data.tags.get("kind") == "cell"]
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"report.html", "sweep.json"}
    assert {run.data.tags["level"] for run in cells} == {"0.2", "0.5"}
    for run in cells:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params["optim.updates_per_rollout"] == "2"
        assert len(client.get_metric_history(run.info.run_id, "policy/entropy")) == 2
        assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {"run.yaml", "samples.json"}


def page_text(page: Path) -> str:
    """The page as a browser shows it, after its scripts have run; as it stands where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return page.read_text()
    quiet = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [browser, "--headless", "--no-sandbox", *quiet, profile, "--virtual-time-budget=8000", "--dump-dom"]
    shown = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    assert "main-svg" in shown  # plotly drew something
    return shown


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_claims_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    words = ("-m", "study=claims", "claims=8,21", "seed=0", "steps=2", "rollout.prompts_per_step=4", "evaluation=none")
    command = [sys.executable, "sweep.py", *words, f"output={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    # Two temperatures, and four updates for claim 8; one seed decides nothing.
    assert len(list((tmp_path / "runs").iterdir())) == 3
    assert "not decided" in done.stdout and "Entropy and n-gram diversity move together" in done.stdout
    (report,) = tmp_path.glob("sweeps/*/report.html")
    assert "Claims of the literature" in report.read_text()
