"""The command line: pages and tables from a name, one sentence for every mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dashboards.__main__ import main
from dashboards.statistics.format import interval_text, number, p_number, p_text, signed
from dashboards.statistics.intervals import Interval
from dashboards.store.store import DEFAULT_URI, default_uri, local_artifact
from dashboards.sweep.names import compared_keys, evaluation_keys, headline_keys, label_of


def test_report_writes_the_file_and_says_where(
    study_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "page.html"
    assert main(["report", "clip_high", "--uri", study_uri, "--output", str(target)]) == 0
    assert target.stat().st_size > 1_000_000 and str(target) in capsys.readouterr().out


def test_report_is_written_below_outputs_by_default(
    study_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "clip_high", "--uri", study_uri, "--log"]) == 0
    assert (tmp_path / "outputs" / "reports" / "clip_high.html").is_file()


def test_table_list_and_verdicts_print(
    study_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", study_uri)
    monkeypatch.chdir(tmp_path)
    assert main(["table", "clip_high"]) == 0 and main(["list"]) == 0 and main(["verdicts"]) == 0
    output = capsys.readouterr().out
    assert "Upper clip threshold" in output and "supported" in output and "clip_high" in output
    assert (tmp_path / "outputs" / "reports" / "verdicts.html").is_file()


def test_mistakes_are_one_sentence_and_status_2(
    study_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", "clip_hgih", "--uri", study_uri]) == 2
    assert main(["list", "--uri", f"sqlite:///{tmp_path / 'none.db'}"]) == 2
    (tmp_path / "file").write_text("")
    assert main(["report", "clip_high", "--uri", study_uri, "--output", str(tmp_path / "file" / "page.html")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    assert "did you mean 'clip_high'" in lines[0] and "there is no MLflow store" in lines[1]


def test_a_table_needs_no_mlflow_import(study_uri: str) -> None:
    code = (
        "import sys; from dashboards.__main__ import main; "
        f"status = main(['table', 'clip_high', '--uri', {study_uri!r}]); "
        "sys.exit(status or ('mlflow' in sys.modules) or ('plotly' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2])


def test_the_store_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri() == DEFAULT_URI
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert default_uri() == "http://localhost:5000"


def test_artifact_paths() -> None:
    assert local_artifact("file:///a%20b/c", "x.json") == Path("/a b/c/x.json")
    assert local_artifact("/a/b", "x.json") == Path("/a/b/x.json")
    assert local_artifact("mlflow-artifacts:/1/2", "x.json") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1372, "0.137"), (0.00621, "0.0062"), (-0.00024, "\u22120.00024"), (25.64, "25.6"), (12345.0, "12,345"),
        (1.2e-6, "1.2e\u221206"), (0.0, "0"), (float("nan"), "\u2013"), (4.0, "4.000"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_signs_intervals_and_p_values() -> None:
    assert signed(0.5) == "+0.500" and signed(-0.5) == "\u22120.500"
    assert interval_text(Interval(mean=0, low=-0.1, high=0.2, count=3), sign=True) == "\u22120.100 to +0.200"
    assert p_text(0.0004) == "p < 0.001" and p_text(0.0123) == "p = 0.012" and p_number(0.3) == "0.30"


def test_headline_takes_the_widest_evaluation_of_the_held_out_suite() -> None:
    keys = [
        "eval/ood/avg_at_16",
        "eval/heldout/avg_at_4",
        "eval/heldout/avg_at_16",
        "eval/heldout/pass_at_8",
        "rollout/reward",
    ]
    assert headline_keys(keys) == ["rollout/reward", "eval/heldout/avg_at_16", "eval/heldout/pass_at_8"]
    assert "eval/ood/avg_at_16" in compared_keys(keys)
    assert [item.k for item in evaluation_keys(keys) if item.suite == "heldout" and item.kind == "avg"] == [4, 16]


def test_an_unknown_metric_is_called_by_its_key() -> None:
    assert label_of("my/metric") == "my/metric"
    assert label_of("eval/heldout/pass_at_8") == "pass@8, held-out"
