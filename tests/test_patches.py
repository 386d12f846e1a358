"""``docs/patches.md``: every row names an API that its file uses, a test that exists, and the pinned version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "patches.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| `")]
PINS = "\n".join(
    path.read_text(encoding="utf-8") for path in [ROOT / "pyproject.toml", *ROOT.glob("requirements/*.txt")]
)
PRIVATE = re.compile(
    r"^\s*(?:from|import) ((?:vllm\.v1|hydra\._\w+|optuna\._\w+|submitit\.\w+\._\w+)\S*)", re.MULTILINE
)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_what_its_file_uses_and_a_test_that_exists(row: list[str]) -> None:
    names, file, purpose, test = re.findall(r"`([^`]+)`", row[0]), row[1].strip("`"), row[2], row[3].strip("`")
    source = (ROOT / file).read_text(encoding="utf-8")
    assert names and all(name in source or name.rpartition(".")[2] in source for name in names)
    assert purpose and (ROOT / test).is_file()


@pytest.mark.parametrize("pin", re.findall(r"^## .* \((\S+)\)$", TEXT, re.MULTILINE))
def test_a_heading_names_the_pinned_version(pin: str) -> None:
    assert re.search(rf"\b{re.escape(pin)}(?![.\w])", PINS)


def test_every_file_that_imports_a_private_module_is_listed() -> None:
    files = [path for package in ("trainer", "sweeps", "dashboards") for path in (ROOT / package).rglob("*.py")]
    importing = {
        path.relative_to(ROOT).as_posix() for path in files if PRIVATE.search(path.read_text(encoding="utf-8"))
    }
    assert importing and importing <= {row[1].strip("`") for row in ROWS}
