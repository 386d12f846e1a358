"""Provenance: what is recorded inside a checkout, outside one, and in a project that lies inside another's checkout."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.storage.provenance import MAX_DIFF, provenance

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | IDENTITY).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout_has_a_revision_and_no_diff(checkout: Path) -> None:
    assert provenance(checkout)["git"] == {"revision": git(checkout, "rev-parse", "HEAD"), "dirty": False, "diff": ""}


def test_a_changed_file_is_in_the_diff(checkout: Path) -> None:
    (checkout / "code.py").write_text("x = 2\n")
    state = provenance(checkout)["git"]
    assert state["dirty"]
    assert "-x = 1\n+x = 2\n" in state["diff"]


def test_a_new_file_makes_it_dirty(checkout: Path) -> None:
    (checkout / "new.py").write_text("")
    assert provenance(checkout)["git"]["dirty"]


def test_a_huge_diff_is_cut_and_says_so(checkout: Path) -> None:
    (checkout / "code.py").write_text("y" * (MAX_DIFF + 1000))
    diff = provenance(checkout)["git"]["diff"]
    assert len(diff) < MAX_DIFF + 100
    assert "cut after" in diff


def test_before_the_first_commit_everything_is_dirty(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("")
    git(tmp_path, "add", "code.py")
    assert provenance(tmp_path)["git"] == {"revision": None, "dirty": True, "diff": ""}


def test_a_checkout_that_merely_surrounds_the_project_does_not_count(checkout: Path) -> None:
    inside = checkout / "venv" / "project"
    inside.mkdir(parents=True)
    (inside / "code.py").write_text("")
    assert provenance(inside)["git"] is None


def test_without_git_the_rest_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance(tmp_path)
    assert found["git"] is None
    assert found["packages"]["torch"]
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory_gib"] > 0
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    json.dumps(found)


def test_the_command_line_is_one_that_can_be_typed() -> None:
    code = "from trainer.storage.provenance import provenance; print(provenance()['command'])"
    done = subprocess.run([sys.executable, "-c", code, "a b"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("'a b'")


def test_it_is_cheap_and_imports_no_torch() -> None:
    code = (
        "import sys; from trainer.storage.provenance import provenance; provenance(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    start = time.perf_counter()
    provenance()
    assert time.perf_counter() - start < 1.0  # about 0.015 s; the rest is for a busy machine
