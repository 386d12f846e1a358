"""``dashboards.load(...).rollouts()``: the responses that runs kept, from their folder or from MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from fake_study import FakeSpec, signature_of, write_study
from mlflow.tracking import MlflowClient
from pyarrow import parquet

import dashboards
from dashboards.store.open import open_store
from dashboards.sweep.artifacts import ROLLOUT_COLUMNS


def write(folder: Path, step: int) -> Path:
    rows: list[dict[str, Any]] = [
        {"step": step, "response": "7", "correct": True, "reward": 1.0, "logprobs": [-0.5, 0.0], "influence": None},
        {"step": step, "response": "8", "correct": False, "reward": 0.0, "logprobs": [-2.0], "influence": [1e-3]},
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_the_folder_of_a_run_gives_every_kept_step_in_order(tmp_path: Path) -> None:
    run = tmp_path / "38930e831968"
    run.mkdir()
    (run / "run.yaml").write_text("seed: 4\n")
    (run / "metrics.jsonl").write_text('{"metrics":{"policy/entropy":0.5},"step":0}\n')
    assert dashboards.load(run).rollouts().empty
    for step in (10, 0):
        write(run / "rollouts", step)
    (run / "rollouts" / ".step-000020.parquet.host.1.tmp").write_bytes(b"torn")
    found = dashboards.load(run).rollouts()
    assert list(found.columns) == list(ROLLOUT_COLUMNS)
    assert found["step"].tolist() == [0, 0, 10, 10] and found["response"].tolist() == ["7", "8"] * 2
    assert found["seed"].unique().tolist() == [4] and found["signature"].unique().tolist() == [run.name]
    assert found["influence"].iloc[0] is None and list(found["logprobs"].iloc[1]) == [-2.0]
    (run / "rollouts" / "step-000011.parquet").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"step-000011.parquet cannot be read as Parquet"):
        dashboards.load(run).rollouts()


def test_a_study_in_mlflow_gives_those_of_its_runs(tmp_path: Path) -> None:
    spec = FakeSpec(levels=("0.2", "0.4"), seeds=2, steps=6)
    uri = write_study(tmp_path, spec)
    record = open_store(uri).runs_with_tag("signature", [signature_of(spec, 1, 0)])[0]
    MlflowClient(tracking_uri=uri).log_artifact(record.run_id, str(write(tmp_path / "kept", 5)), "rollouts")
    found = dashboards.load("clip_high", uri).rollouts()
    assert found["level"].tolist() == ["0.4", "0.4"] and found["step"].tolist() == [5, 5]
    assert found["correct"].tolist() == [True, False]
