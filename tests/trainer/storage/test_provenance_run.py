"""What a run folder says of its origin: everything needed to run it again, also after it went on under other code."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from runs import run_config

from trainer.storage import provenance as module
from trainer.storage.provenance import data_files, describe_run, provenance, seeds


@pytest.fixture
def git(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The state of the checkout, as a test likes it."""
    state: dict[str, Any] = {"revision": "a" * 40, "dirty": False, "diff": ""}
    monkeypatch.setattr(module, "_git_state", lambda root: dict(state))
    return state


def described(folder: Path, config: dict[str, Any] | None = None) -> dict[str, Any]:
    describe_run(folder, config or {"seed": 3})
    content: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return content


def test_a_run_folder_names_code_packages_hardware_seeds_data_and_command(tmp_path: Path) -> None:
    config = run_config({"seed": 7, "task.problem_seed": 11})
    found = described(tmp_path, config)
    assert set(found) == {
        *("command", "data", "directory", "earlier", "git", "hardware", "notes", "packages", "python", "seeds"),
    }
    assert found["seeds"]["seed"] == 7 and found["seeds"]["task.problem_seed"] == 11
    assert found["directory"] == str(Path.cwd())
    assert json.loads((tmp_path / "metrics.json").read_text())[0]["name"] == "policy/entropy"


def test_seeds_are_found_wherever_they_are() -> None:
    config = {"seed": 1, "task": {"problem_seed": 2, "path": "x"}, "seeds": 5, "weight": {"w": {"seed": None}}}
    assert seeds(config) == {"seed": 1, "task.problem_seed": 2, "weight.w.seed": None}


def test_files_of_the_task_are_named_by_content(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n")
    config = {"task": {"path": str(data), "suite_paths": {"ood": str(data)}, "template": "no/file", "long": "x" * 5000}}
    digest = hashlib.sha256(b"{}\n").hexdigest()
    assert data_files(config) == {"task.path": digest, "task.suite_paths.ood": digest}


def test_an_attempt_on_the_same_code_leaves_one_entry(tmp_path: Path, git: dict[str, Any]) -> None:
    described(tmp_path)
    assert described(tmp_path)["earlier"] == []


def test_attempts_on_other_code_stay_with_their_diffs(tmp_path: Path, git: dict[str, Any]) -> None:
    git |= {"dirty": True, "diff": "-a\r\n+b\n"}
    first = described(tmp_path)
    assert (tmp_path / "diff.patch").read_bytes() == b"-a\r\n+b\n"
    git |= {"diff": "-a\n+c\n"}
    second = described(tmp_path)
    git |= {"revision": "b" * 40, "dirty": False, "diff": ""}
    third = described(tmp_path)
    assert not (tmp_path / "diff.patch").exists(), "the newest attempt is clean"
    without = [{key: value for key, value in entry.items() if key != "earlier"} for entry in (first, second)]
    assert third["earlier"] == without
    kept = [(tmp_path / f"diff-{entry['git']['diff_sha256'][:12]}.patch").read_bytes() for entry in without]
    assert kept == [b"-a\r\n+b\n", b"-a\n+c\n"]


def test_a_kill_between_the_files_of_the_origin_mixes_nothing(
    tmp_path: Path, git: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the new diff was written and before the new provenance: the old diff is still the old attempt's."""
    git |= {"diff": "old"}
    described(tmp_path)
    git |= {"diff": "new"}
    write = module.write_atomic

    def killed(path: Path, text: str) -> None:
        if path.name == "provenance.json":
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(module, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        described(tmp_path)
    monkeypatch.setattr(module, "write_atomic", write)
    (entry,) = described(tmp_path)["earlier"]
    assert (tmp_path / f"diff-{entry['git']['diff_sha256'][:12]}.patch").read_text() == "old"
    assert (tmp_path / "diff.patch").read_text() == "new"


def test_a_provenance_that_somebody_spoilt_does_not_stop_a_run(tmp_path: Path, git: dict[str, Any]) -> None:
    (tmp_path / "provenance.json").write_text("[1")
    assert described(tmp_path)["earlier"] == []


def test_the_diff_of_a_dirty_tree_makes_a_clean_one_equal_to_it(tmp_path: Path) -> None:
    """New files of code included; nothing in the checkout, its index or its objects changes."""
    tree, clean = tmp_path / "it's a tree ü", tmp_path / "clean"
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]

    def run(place: Path, *arguments: str) -> None:
        subprocess.run([*command, "-C", str(place), *arguments], check=True, capture_output=True)

    tree.mkdir()
    run(tree, "init", "-q")
    (tree / "old.py").write_text("x = 1\n")
    (tree / ".gitignore").write_text("ignored.py\n")
    run(tree, "add", ".")
    run(tree, "commit", "-q", "-m", "first")
    run(tmp_path, "clone", "-q", str(tree), str(clean))
    (tree / "old.py").write_text("x = 2\n")
    (tree / "methods").mkdir()
    (tree / "methods" / "my method.py").write_text("y = 'é'\n")
    (tree / "conf.yaml").write_text("a: 1\n")
    (tree / "ignored.py").write_text("")
    (tree / "weights.bin").write_bytes(bytes(100))
    before = {path: path.read_bytes() for path in (tree / ".git").rglob("*") if path.is_file()}
    found = provenance(tree)["git"]
    assert {path: path.read_bytes() for path in (tree / ".git").rglob("*") if path.is_file()} == before
    assert found["dirty"]
    subprocess.run(["git", "-C", str(clean), "apply"], input=found["diff"].encode(), check=True)
    names = {str(path.relative_to(clean)) for path in clean.rglob("*") if path.is_file() and ".git/" not in str(path)}
    assert names == {".gitignore", "old.py", "conf.yaml", "methods/my method.py"}
    assert all((clean / name).read_bytes() == (tree / name).read_bytes() for name in names)
