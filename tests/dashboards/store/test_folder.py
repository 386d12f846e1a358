"""A run's folder as a store: metrics, tables, states, torn and damaged lines; its page without MLflow."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import dashboards
from dashboards.__main__ import main
from dashboards.store.open import open_store
from dashboards.sweep.run import load

CONFIG = """
seed: 3
steps: 4
method: grpo
study: {name: first, level: null}
task: {name: countdown, shots: []}
"""


def write_run(folder: Path, *, tail: str = "", status: dict[str, Any] | None = None) -> Path:
    run = folder / "runs" / "abcdef123456"
    run.mkdir(parents=True)
    (run / "run.yaml").write_text(CONFIG)
    rows = [{"step": step, "metrics": {"policy/entropy": 0.4 - 0.1 * step, "policy/kl_old": None}} for step in range(4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    (run / "timings.jsonl").write_text(json.dumps({"step": 0, "metrics": {"time/step_s": 1.5}}) + "\n")
    sample = {"step": 0, "source": "rollout", "prompt": "1+1=", "response": "2", "reward": 1.0}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (run / "status.json").write_text(json.dumps(status or {"state": "COMPLETED", "message": None}))
    return run


def test_a_folder_is_a_store_of_one_run(tmp_path: Path) -> None:
    run = write_run(tmp_path, tail='{"step": 4, "torn')
    frames = dashboards.load(run)
    cell = frames.runs.iloc[0]
    assert (cell["signature"], cell["seed"], cell["state"], cell["last_step"]) == ("abcdef123456", 3, "COMPLETED", 3)
    entropy = frames.metrics.query("metric == 'policy/entropy'")["value"].tolist()
    assert entropy == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert all(math.isnan(value) for value in frames.metrics.query("metric == 'policy/kl_old'")["value"])
    assert frames.metrics.query("metric == 'time/step_s'")["value"].item() == 1.5
    assert frames.samples()["response"].tolist() == ["2"] and frames.reliability().empty
    assert frames.sweep.settings["task.name"] == "countdown"


def test_the_page_of_a_run_compares_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path)
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--output", str(page)]) == 0 and str(page) in capsys.readouterr().out
    text = page.read_text()
    assert "Run abcdef123456" in text and "Before and after" in text and "Policy entropy during training" in text
    assert "by level" not in text and "Verdict" not in text and "mlflow ui" not in text
    assert f"python -m dashboards export {run}" in text
    assert main(["report", str(run), "--log"]) == 2 and "by its signature, abcdef123456" in capsys.readouterr().err


def test_what_cannot_be_shown_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path)
    (run / "metrics.jsonl").write_text("{broken\n")
    assert main(["report", str(run)]) == 2 and "line 1 is damaged" in capsys.readouterr().err
    for name in ("metrics.jsonl", "timings.jsonl"):
        (run / name).write_text("")
    assert main(["report", str(run)]) == 2 and "has not logged a step yet" in capsys.readouterr().err
    (run / "run.yaml").write_text("a: [")
    assert main(["report", str(run)]) == 2 and "run.yaml cannot be read" in capsys.readouterr().err


def test_states_of_a_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path, status={"state": "FAILED", "message": "RuntimeError: no"})
    cell = dashboards.load(run).runs.iloc[0]
    assert (cell["state"], cell["message"]) == ("FAILED", "RuntimeError: no")
    (run / "status.json").unlink()
    assert dashboards.load(run).runs["state"].item() == "RUNNING"


def test_a_run_is_found_in_mlflow_by_signature_prefix_id_and_name(study_uri: str, tmp_path: Path) -> None:
    record = open_store(study_uri).runs_with_tag("signature", ["clip0102"])[0]
    for name in ("clip0102", record.run_id):
        assert load(study_uri, name).cells["run_id"].tolist() == [record.run_id]
    with pytest.raises(ValueError, match="no study named 'clip01'"):
        load(study_uri, "clip01")  # three runs begin so
    page = tmp_path / "run.html"
    assert main(["report", "clip0102", "--uri", study_uri, "--output", str(page)]) == 0
    assert f"/runs/{record.run_id}" in page.read_text()
