"""A real search through everything: six tiny trials with trainer and vLLM, MLflow, and the comparison at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from sweeps.search.space import override
from sweeps.search.store import find, open_storage
from trainer.contract.paths import ROOT

TINY = (
    *("study=smoke", "task.num_prompts=16", "optim.updates_per_rollout=2", "optim.lr=0.003", "accounting=none"),
    *("hardware.device=cpu", "hardware.num_threads=1", "launcher.slots=2", "study.name=tiny"),
)
SEARCH = (
    *("search.n_trials=6", "search.seeds=[0]", "search.rungs=[1]", "search.confirm_seeds=[7]", "search.preset=false"),
    *("search.objectives=[{metric:eval/heldout/avg_at_4}]", "search.prune_startup=3"),
    "search.measure=['evaluation.every=1','evaluation.suites=[heldout]']",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_six_tiny_trials_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    output = tmp_path / "out puts"
    command = [sys.executable, "sweep.py", "-m", "search=clip", *TINY, *SEARCH, override("output", str(output))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6/6 trials" in done.stdout and "optuna-dashboard" in done.stdout
    study = find(open_storage(str(output / "sweeps" / "tiny" / "study.journal")), "tiny")
    assert study is not None and len(study.trials) == 6
    assert {trial.state for trial in study.trials} <= {
        optuna.trial.TrialState.COMPLETE,
        optuna.trial.TrialState.PRUNED,
    }
    for trial in study.trials:
        run = output / "runs" / trial.user_attrs["cells"][0]["run"]
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        if trial.state == optuna.trial.TrialState.COMPLETE:
            assert trial.value == last["metrics"]["eval/heldout/avg_at_4"]
            assert trial.intermediate_values  # a running job reported to the study
    assert study.user_attrs["confirm_levels"]["tuned"] == study.best_trial.number
    check_store(output)


def check_store(output: Path) -> None:
    """One parent for the search, its runs nested below; another for the comparison, with the unseen suite."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    experiment = client.get_experiment_by_name("rlvr-entropy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.data.tags["study"]: run for run in runs if run.data.tags.get("kind") == "sweep"}
    assert set(parents) == {"tiny", "tiny-confirm"}
    cells = [run for run in runs if run.data.tags.get("kind") == "cell"]
    below = [run for run in cells if run.data.tags["mlflow.parentRunId"] == parents["tiny"].info.run_id]
    assert len(below) == 6 and {run.data.tags["level"] for run in below} == {f"trial {i}" for i in range(6)}
    compared = [run for run in cells if run.data.tags["study"] == "tiny-confirm"]
    assert {run.data.tags["level"] for run in compared} == {"untuned", "tuned"}
    assert all("eval/ood/avg_at_4" in run.data.metrics for run in compared)
