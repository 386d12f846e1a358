"""Files of an output folder that something else damaged: every command says which, in a sentence, and none fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.__main__ import main

COMMANDS = ("plan", "status", "logs", "cancel", "resume", "retry", "sync", "attach", "gc")

RUN_FILES = {
    "status.json": (b"", b"{", b'"RUNNING"', b'{"state": "DANCING"}', b"\xff\xfe", None),
    "metrics.jsonl": (b'{"step":0,"metrics":{}}\nnonsense\n{"step":2,"metrics":{}}\n', b"\xff\n", None),
    "timings.jsonl": (b"nonsense\n", None),
    "mirror.json": (b"nonsense", None),
    "attempts": (b"",),
}
"""Contents in the place of a file; None is a folder."""

DAMAGES = [(name, content) for name, contents in RUN_FILES.items() for content in contents]


def damage(path: Path, content: bytes | None) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "content"), DAMAGES, ids=[f"{name}-{content!r:.20}" for name, content in DAMAGES])
def test_a_damaged_file_of_a_run_is_a_sentence_or_of_no_account(
    name: str, content: bytes | None, sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "seed=1,13") == 1
    outputs, copy = tmp_path / "outputs", tmp_path / "copy"
    shutil.copytree(outputs, copy)
    capsys.readouterr()
    for command in COMMANDS:
        shutil.rmtree(outputs)
        shutil.copytree(copy, outputs)
        path = min((outputs / "runs").iterdir()) / name
        damage(path, content)
        code = main([command, "--output", str(outputs)] if command == "gc" else [command, "seed-steps-3"])
        told = said(capsys)
        assert code in (0, 1, 2), told
        if name == "status.json" and command not in ("logs", "sync"):
            assert code == 2 and str(path) in told and told.count("error:") == 1, (command, told)
        if name == "metrics.jsonl" and command == "status":
            assert str(path) in " ".join(told.split()), told  # the sentence is wrapped to the screen


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"cells": [{}]}', None])
def test_a_damaged_list_of_cells_is_one_sentence(
    content: bytes | None, sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "seed=1,2") == 0
    path = tmp_path / "outputs" / "sweeps" / "seed-steps-3" / "sweep.json"
    damage(path, content)
    capsys.readouterr()
    for command in COMMANDS:
        if command == "gc" and content is None:
            continue
        assert main([command] if command == "gc" else [command, "seed-steps-3"]) == 2
        told = said(capsys)
        assert str(path) in told and told.count("error:") == 1, (command, told)
    if content is not None:
        assert sweep("-m", "seed=1,2") == 0, "starting it again writes it anew"


@pytest.mark.parametrize("place", ["runs", "sweeps"])
def test_a_file_in_the_place_of_a_folder_is_named(
    place: str, sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / place).touch()
    assert sweep("-m", "seed=1,2") == 2
    assert f"outputs/{place}" in said(capsys)
    for command in COMMANDS:
        assert main([command] if command == "gc" else [command, "seed-steps-3"]) in (0, 2)
