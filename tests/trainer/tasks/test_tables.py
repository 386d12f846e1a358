"""Questions from JSON lines, CSV, Parquet and the hub: the same prompts, and one sentence for a table that lacks
something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from trainer.contract.components import build_component
from trainer.contract.paths import ROOT
from trainer.tasks.jsonl import JsonlTask
from trainer.tasks.tables import MISSING, column, records

ROWS = [{"id": 7, "question": "1 + 1?", "answer": "2"}, {"id": 8, "question": 'Say "a,\nb".', "answer": "a"}]


def lines(path: Path, rows: list[dict[str, Any]] = ROWS) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def parquet(path: Path, rows: list[dict[str, Any]] = ROWS) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def comma_separated(path: Path) -> str:
    text = '\ufeffid,question,answer\n7,1 + 1?,2\n8,"Say ""a,\nb"".",a\n'
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ``datasets`` library takes a folder here for a data set of that name: the stand-in for the hub."""
    pytest.importorskip("datasets", reason="the package datasets is not installed: `make install` brings it")
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path) -> None:
    sources = (lines(tmp_path / "a.jsonl"), parquet(tmp_path / "a.parquet"), comma_separated(tmp_path / "a.csv"))
    found = [[(p.text, p.data["answer"]) for p in JsonlTask(path=source).train_prompts()] for source in sources]
    assert found[0] == found[1] == found[2] and [answer for _, answer in found[0]] == ["2", "a"]
    assert 'Say "a,\nb".' in found[0][1][0]


def test_a_data_set_of_the_hub_is_read_by_split_and_columns(hub: Path) -> None:
    parquet(hub / "owner" / "sums" / "train.parquet")
    parquet(hub / "owner" / "sums" / "test.parquet", ROWS[1:])
    task = JsonlTask(path="hub:owner/sums", suite_paths={"test": "hub:owner/sums:test"})
    assert [prompt.data["where"] for prompt in task.train_prompts()] == ["hub:owner/sums:1", "hub:owner/sums:2"]
    assert [prompt.data["answer"] for prompt in task.suites()["test"]] == ["a"]
    assert next(records("hub:owner/sums", ("question",))) == (1, {"question": "1 + 1?"})


def test_a_data_set_that_cannot_be_had_is_one_sentence(hub: Path) -> None:
    with pytest.raises(
        ValueError, match=r"hub:owner/nothing:train could not be brought from the hub: .*local JSON"
    ) as no:
        JsonlTask(path="hub:owner/nothing:train").train_prompts()
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("source", ["hub:nothing", "hub:a/b/c/d", "hub:", "hub:a/b:c:d", "hub:../../etc"])
def test_an_address_of_the_hub_has_one_form(source: str) -> None:
    with pytest.raises(ValueError, match="hub:OWNER/NAME/CONFIG:SPLIT"):
        JsonlTask(path=source)


@pytest.mark.parametrize("make", [parquet, comma_separated], ids=["parquet", "csv"])
def test_a_missing_column_is_named_with_those_that_exist(tmp_path: Path, make: Any) -> None:
    source = make(tmp_path / ("a.parquet" if make is parquet else "a.csv"))
    with pytest.raises(ValueError, match=r"has no column 'problem': it has id, question, answer; set"):
        JsonlTask(path=source, question_field="problem").train_prompts()


def test_a_line_without_the_field_names_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no field 'problem' among 'id', 'question', 'answer' \(lines 1, 2\)"):
        JsonlTask(path=lines(tmp_path / "a.jsonl"), question_field="problem").train_prompts()


def test_bad_rows_of_a_table_are_counted_in_rows(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", [*ROWS, {"id": 9, "question": "?", "answer": None}])
    with pytest.raises(ValueError, match=r"1 of 3 rows cannot be used: answer is null, not text \(row 3\)"):
        JsonlTask(path=source).train_prompts()


def test_files_that_are_no_tables_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    (tmp_path / "a.csv").write_bytes("question,answer\nf\xfcr?,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.parquet cannot be read as Parquet"):
        JsonlTask(path=str(tmp_path / "a.parquet")).train_prompts()
    with pytest.raises(ValueError, match=r"a.csv is not UTF-8"):
        JsonlTask(path=str(tmp_path / "a.csv")).train_prompts()


def test_columns_within_columns() -> None:
    row = {"prompt": [{"content": "q"}], "reward_model": {"ground_truth": "34"}, "a.b": 1, "a": {"b": 2}}
    assert column(row, "prompt.0.content") == "q" and column(row, "reward_model.ground_truth") == "34"
    assert column(row, "a.b") == 1  # a column of that very name wins
    for name in ("prompt.1.content", "prompt.x", "reward_model.style", "none", "a.b.c", "prompt.0.content.0"):
        assert column(row, name) is MISSING


PUBLISHED = {
    "gsm8k": {"question": "How many?", "answer": "4 and 3 is <<4+3=7>>7\n#### 7"},
    "math_hendrycks": {
        "problem": "P",
        "level": "Level 1",
        "type": "Algebra",
        "solution": "So $\\boxed{\\frac{14}{2}}$.",
    },
    "dapo_math_17k": {
        "data_source": "math_dapo",
        "prompt": [{"content": 'P\n\nRemember to put your answer on its own line after "Answer:".', "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": "7", "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "9a9b6eb4"},
    },
    "openr1_math": {"problem": "P", "solution": "...", "answer": "7", "problem_type": "Algebra", "generations": ["x"]},
}
SUITES = {
    "aime24": {"id": 1, "problem": "P2", "solution": "...", "answer": "7", "url": "", "year": "2024"},
    "math500": {"problem": "P2", "solution": "So \\boxed{7}.", "answer": "7", "subject": "Algebra", "level": 1},
    "test": PUBLISHED["gsm8k"],
}
RESPONSES = {"dapo_math_17k": "so\n**Answer:** no\nAnswer: $7$"}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_read_the_published_columns(tmp_path: Path, preset: str) -> None:
    node = yaml.safe_load((ROOT / "conf" / "task" / f"{preset}.yaml").read_text())
    assert all(source.startswith("hub:") for source in (node["path"], *node["suite_paths"].values()))
    train = parquet(tmp_path / "train.parquet", [PUBLISHED[preset]] * 3)
    suites = {name: parquet(tmp_path / f"{name}.parquet", [SUITES[name]]) for name in node["suite_paths"]}
    task = build_component(node | {"path": train, "suite_paths": suites}, "task")
    prompts = task.train_prompts()
    assert len(prompts) == (1 if node.get("repeats") == "drop" else 3)
    for prompt in (prompts[0], *(prompts[0] for prompts in task.suites().values())):
        assert prompt.data["answer"] == "7"
        assert task.verify(prompt, RESPONSES.get(preset, "so \\boxed{7}")).reward == 1.0
        assert task.verify(prompt, "so \\boxed{8}\nAnswer: 8").reward == 0.0
    if preset == "dapo_math_17k":
        assert "Answer:" in task.suites()["aime24"][0].text
