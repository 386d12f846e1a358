"""A study of claims read from MLflow: verdicts, their reasons, the page, the table, and its record as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from browser import in_a_browser, opened
from fake_study import EVERYWHERE, FakeSpec, write_study

from dashboards.__main__ import main
from dashboards.claims.page import write_claims
from dashboards.claims.study import ClaimStudy, load_study, undecided, verdicts
from dashboards.claims.text import counted, markdown
from dashboards.statistics.format import NONE
from dashboards.sweep.artifacts import load_samples
from dashboards.sweep.load import load_sweep

ENTROPY = {"end": "policy/entropy"}
ARMS = {"low": "0.2", "middle": "0.28", "high": "0.5"}
CLAIMS = [
    {"number": 1, "statement": "Entropy rises.", "source": "P", "arms": ARMS,
     "tests": [{"value": ENTROPY, "expect": "increase"}]},
    {"number": 2, "statement": "Entropy falls.", "source": "P", "arms": {"low": "0.2", "high": "0.5"},
     "tests": [{"value": ENTROPY, "expect": "decrease"}]},
    {"number": 3, "statement": "The gradient grows.", "source": "P", "arms": {"low": "0.2", "high": "0.5"},
     "tests": [{"value": {"end": "policy/grad_norm"}, "expect": "increase"}], "caveat": f"C {EVERYWHERE}"},
    {"number": 5, "statement": "The law, the ledger and STEER.", "source": "P", "arms": {"low": "0.2"},
     "tests": [{"value": {"law_fit": 1}, "expect": {"above": 0.5}},
               {"value": {"lead": "steer_published", "over": ["covariance"]}, "expect": {"above": 0}},
               {"value": {"slope": ["ledger/predicted", "ledger/measured"]}, "expect": {"above": 0.8}}]},
    {"number": 4, "statement": "Never run.", "source": "P", "arms": {"a": "0.9"},
     "tests": [{"value": ENTROPY, "expect": {"above": 0}}]},
]  # fmt: skip

SPEC = FakeSpec(study="claims", factor=None, seeds=5, steps=20, effect=0.02, claims=CLAIMS)


@pytest.fixture(scope="module")
def uri(new_store: Callable[[], Path]) -> str:
    return write_study(new_store(), SPEC)


@pytest.fixture(scope="module")
def study(uri: str) -> ClaimStudy:
    return load_study(uri)


def test_verdicts_come_from_the_runs_of_the_arms(study: ClaimStudy) -> None:
    found = verdicts(study)
    assert [verdict.outcome for verdict in found] == [
        "reproduced", "contradicted", "not decided", "not run", "reproduced",
    ]  # fmt: skip
    assert undecided(found) == [3, 4]
    # The effect of the helper: 0.02 nats a level, three levels from low to high.
    assert found[0].results[0].comparisons[0].interval.mean == pytest.approx(0.06 * (1 - 0.16), abs=0.015)
    assert counted(found).startswith("2 reproduced, 1 contradicted, 1 not decided, 1 not run; 2 of the reproduced")


def test_a_contradicted_claim_says_what_the_ledger_says(study: ClaimStudy) -> None:
    found = verdicts(study)
    assert found[1].why.startswith("From low to high the change of entropy differs by +")
    assert "negative, unlikely tokens" in found[1].why and found[0].why == ""


def test_the_command_prints_a_table_and_writes_page_and_markdown(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["claims", "--uri", uri, "--markdown", "claims.md"]) == 0
    out = capsys.readouterr().out
    assert "reproduced" in out and max(map(len, out.splitlines())) <= 100
    assert (tmp_path / "outputs" / "reports" / "claims.html").is_file()
    rows = [line for line in (tmp_path / "claims.md").read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[2] for row in rows[1:6]] == [
        "**reproduced**", "**contradicted**", "**not decided**", "**not run**", "**reproduced**",
    ]  # fmt: skip
    assert rows[6] == "| metric | within runs | across levels |" and rows[7].startswith("| Reward of all samples | ")
    assert main(["claims", "--uri", uri, "--undecided"]) == 0
    assert json.loads(capsys.readouterr().out) == [3, 4]


def test_a_store_without_claims_and_claims_that_cannot_be_judged_are_sentences(
    study_uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["claims", "--uri", study_uri]) == 2
    assert "holds no study of claims: run python sweep.py -m study=claims" in capsys.readouterr().err
    wrong = [CLAIMS[0] | {"tests": [{"value": {"x": 1}}]}, CLAIMS[1]]
    monkeypatch.setattr("sys.stdin.read", lambda: json.dumps(wrong), raising=False)
    assert main(["claims", "--check"]) == 2
    assert capsys.readouterr().err.startswith("error: claim 1: value begins with one of")


def test_a_second_study_has_a_column_and_says_where_it_disagrees(
    uri: str, tmp_path: Path, new_store: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where entropy falls with the level, the second study contradicts claim 1 and reproduces claim 2."""
    falling = replace(SPEC, study="claims-real", effect=-0.02, claims=CLAIMS[:2])
    other = write_study(new_store(), falling)
    command = ["claims", "--uri", uri, "--beside", "claims-real", "--beside-uri", other]
    assert main([*command, "--output", str(tmp_path / "a.html"), "--markdown", str(tmp_path / "a.md")]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert max(map(len, rows)) <= 100 and rows[0].endswith("claims-real")
    assert [rows[line].split("  ")[-1].strip() for line in (2, 3, 4)] == ["contradicted (5)", "reproduced (5)", NONE]
    text = (tmp_path / "a.md").read_text()
    assert "| Holm | claims-real | tests |" in text and text.count("The two studies disagree. From low to high") == 2
    assert "claims-real: policy entropy at the end: low → middle → high, above 0: " in (tmp_path / "a.html").read_text()


@in_a_browser
def test_the_page_opens_with_a_figure_behind_every_row(study: ClaimStudy, tmp_path: Path) -> None:
    page = write_claims(study, verdicts(study), tmp_path / "claims.html")
    document, console = opened(page)
    assert console == [] and "pwned" not in document.partition("<title>")[2].partition("</title>")[0]
    assert document.count('class="badge') == 5
    for number in (1, 2, 3):
        assert f'href="#claim-{number}"' in document and f'id="claim-{number}"' in document
    assert document.count('class="main-svg"') >= 6, "curves and numbers of three claims"
    titles = ("Configuration low", "Reward against entropy", "Estimators of influence", "Measured against predicted")
    assert [title for title in titles if title not in document] == []


def test_a_record_reads_as_the_store_it_was_made_from(
    uri: str, study: ClaimStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "claims", "--uri", uri, "--output", str(tmp_path)]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()] == ["metrics.parquet", "study.json"]
    again = load_study(str(tmp_path))
    first, second = markdown(verdicts(study), study.sweep), markdown(verdicts(again), again.sweep)
    assert first == second
    assert load_sweep(str(tmp_path), "claims").glossary.describe("policy/entropy").unit == "nats"
    assert len(again.sweep.completed) == 20
    pd.testing.assert_frame_equal(load_samples(again.sweep), load_samples(study.sweep))
    assert str(Path(uri.removeprefix("sqlite:///")).parent) not in (tmp_path / "study.json").read_text()


def test_a_record_that_grows_keeps_what_it_has(
    study: ClaimStudy, uri: str, tmp_path: Path, new_store: Callable[[], Path]
) -> None:
    """The same cells on a second machine, where one level is not done yet."""
    other = write_study(new_store(), replace(SPEC, states={(3, seed): "RUNNING" for seed in range(5)}))
    assert main(["record", "claims", "--uri", uri, "--output", str(tmp_path)]) == 0
    assert main(["record", "claims", "--uri", other, "--output", str(tmp_path)]) == 0
    again = load_study(str(tmp_path))
    assert len(load_study(other).sweep.completed) == 15 and len(again.sweep.completed) == 20
    pd.testing.assert_frame_equal(again.runs["0.5", 0], study.runs["0.5", 0], check_exact=False, rtol=1e-6)
    assert load_samples(again.sweep)["signature"].nunique() == 20


def test_a_record_of_many_responses_keeps_none(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboards.data.record.MOST_SAMPLES", 1000)
    assert main(["record", "claims", "--uri", uri, "--output", str(tmp_path)]) == 0
    assert load_samples(load_study(str(tmp_path)).sweep).empty


def test_a_damaged_record_is_a_sentence(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "claims", "--uri", uri, "--output", str(tmp_path)]) == 0
    (tmp_path / "study.json").write_text("{")
    assert main(["claims", "--uri", str(tmp_path)]) == 2
    assert f"the record {tmp_path} cannot be read" in capsys.readouterr().err
