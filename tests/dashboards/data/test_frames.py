"""A study and a run as data frames, as files, in a page and in other trackers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import dashboards
from dashboards.__main__ import main
from dashboards.data import download
from dashboards.data.download import download_document
from dashboards.data.export import export
from dashboards.sweep.load import SweepData
from dashboards.sweep.summary import final_table


def test_load_gives_tidy_frames(study_uri: str, sweep: SweepData) -> None:
    study = dashboards.load("clip_high", study_uri)
    assert study.name == "clip_high" and len(study.runs) == 12 and set(study.runs["state"]) == {"COMPLETED"}
    entropy = study.metrics[study.metrics["metric"] == "policy/entropy"]
    assert len(entropy) == 12 * 20 and not entropy.duplicated(["signature", "step"]).any()
    wide = study.wide(["policy/entropy", "rollout/reward", "never/logged"])
    assert list(wide.columns[-4:]) == ["step", "policy/entropy", "rollout/reward", "never/logged"]
    assert len(wide) == 240 and wide["policy/entropy"].notna().all() and wide["never/logged"].isna().all()
    finals = study.finals.query("metric == 'policy/entropy'").pivot(index="seed", columns="level", values="value")
    pd.testing.assert_frame_equal(finals, final_table(sweep, "policy/entropy"), check_names=False)
    ece = study.definitions.set_index("metric").loc["calibration/ece"]
    assert (ece["label"], ece["low"], ece["high"], ece["better"]) == ("Calibration error (ECE)", 0.0, 1.0, "lower")
    assert {"prompt", "response"} <= set(study.samples()) and len(study.tokens()["influence"].iloc[0]) == 6
    assert set(study.reliability()["suite"]) == {"heldout", "ood"}


def test_frames_are_copies(study_uri: str) -> None:
    study = dashboards.load("clip_high", study_uri)
    frame = study.metrics
    frame["value"] = 0.0
    assert study.metrics["value"].abs().sum() > 0


def test_what_is_not_there_is_one_sentence(study_uri: str) -> None:
    with pytest.raises(ValueError, match="did you mean 'clip_high'"):
        dashboards.load("clip_hgih", study_uri)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_export_writes_what_load_gives(
    kind: str, study_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "clip_high", "--uri", study_uri, "--format", kind, "--output", str(tmp_path)]
    assert main(command) == 0
    names = ["runs", "metrics", "finals", "definitions", "samples", "reliability", "tokens"]
    assert capsys.readouterr().out.split() == [str(tmp_path / f"{name}.{kind}") for name in names]
    read = pd.read_csv if kind == "csv" else pd.read_parquet
    metrics = read(tmp_path / f"metrics.{kind}")
    expected = dashboards.load("clip_high", study_uri).metrics
    assert metrics["value"].tolist() == pytest.approx(expected["value"].tolist(), nan_ok=True)
    influence = read(tmp_path / f"tokens.{kind}")["influence"].iloc[0]
    assert len(json.loads(influence) if kind == "csv" else influence) == 6


def test_an_unknown_format_is_refused(study_uri: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="csv or parquet"):
        export(dashboards.load("clip_high", study_uri), tmp_path, "xlsx")


def test_the_download_holds_every_point_and_skips_steps_of_a_large_study(
    sweep: SweepData, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["policy/entropy", "eval/ood/avg_at_16"]
    document = download_document(sweep, keys)
    gaps, values = document["metrics"]["policy/entropy"][0]
    assert gaps == [0] + [1] * 19 and len(values) == 20 and document["every"] == 1
    assert document["runs"][0] == [sweep.cells["signature"].iloc[0], "0.2", 0, "COMPLETED"]
    monkeypatch.setattr(download, "MOST_POINTS", 100)
    document = download_document(sweep, keys)
    assert document["every"] == 3 and document["metrics"]["policy/entropy"][0][0] == [0, 3, 3, 3, 3, 3, 3, 1]
    assert document["metrics"]["eval/ood/avg_at_16"][0][0] == [0, 10, 9], "the few evaluations stay"


def test_a_mirror_without_its_package_says_how_to_get_it(
    study_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = ["mirror", "clip_high", "--uri", study_uri, "--to", "wandb", "--output", str(tmp_path)]
    assert main(command) == 2 and "pip install wandb" in capsys.readouterr().err


def test_tensorboard_has_every_finite_point_once(study_uri: str, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):
        assert main(["mirror", "clip_high", "--uri", study_uri, "--to", "tensorboard", "--output", str(tmp_path)]) == 0
    folders = sorted(path for path in tmp_path.iterdir())
    assert len(folders) == 12
    found = events.EventAccumulator(str(folders[0]), size_guidance={"tensors": 0}).Reload()
    entropy = dashboards.load("clip_high", study_uri).metrics.query("metric == 'policy/entropy'")
    logged = entropy[entropy["signature"] == "clip0000"]
    points = found.Tensors("policy/entropy")
    assert [point.step for point in points] == logged["step"].tolist()
    assert [point.tensor_proto.float_val[0] for point in points] == pytest.approx(logged["value"].tolist())


def test_loading_needs_neither_mlflow_nor_plotly_nor_torch(study_uri: str) -> None:
    code = (
        f"import sys, dashboards; dashboards.load('clip_high', {study_uri!r}).wide(); "
        "sys.exit(any(name in sys.modules for name in ('mlflow', 'plotly', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
