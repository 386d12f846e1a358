"""Every section of the specification and every document that the code or a page names exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from trainer.contract.paths import ROOT

SPECIFICATION = ROOT / "docs" / "specification.md"
READ = (".py", ".yaml", ".md", ".html", ".toml")
DATED = {"CHANGELOG.md"}
"""Says what files were called at the time."""


def sections() -> set[str]:
    """Numbers of the headings: ``14``, ``14.2``."""
    return set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", SPECIFICATION.read_text(), flags=re.MULTILINE))


def texts() -> list[tuple[str, str]]:
    """(path, text) of every source and page that git tracks or could track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    names = listed if any(listed) else [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    return [
        (name, (ROOT / name).read_text(errors="replace"))
        for name in sorted(set(names))
        if name.endswith(READ) and (ROOT / name).is_file() and Path(name).parts[0] not in (".venv", "outputs")
    ]


def references(text: str) -> set[str]:
    """Sections that ``text`` refers to; "specification 3.2, 3.3 and 6" are three."""
    return {
        number
        for run in re.findall(r"[Ss]pecification[\s#]+(\d[\d., and]*)", text)
        for number in re.findall(r"\d+(?:\.\d+)?", run)
    }


def test_references_are_read_as_they_are_written() -> None:
    assert references("see specification 3.2, 3.3 and 6.") == {"3.2", "3.3", "6"}
    assert references("the specification\n14.2 says") == {"14.2"}
    assert references("specification of 3 things") == set()


def test_every_section_named_exists() -> None:
    known = sections()
    assert {"0.4", "14.2", "15.1"} <= known
    dangling = [f"{name}: {sorted(missing)}" for name, text in texts() if (missing := references(text) - known)]
    assert dangling == []


def test_enough_refer_to_it() -> None:
    assert sum(bool(references(text)) for _, text in texts()) > 50


@pytest.mark.parametrize("pattern", [r"\b[A-Z]{4,}\.md\b"])
def test_no_document_is_named_that_is_not_here(pattern: str) -> None:
    dangling = [
        f"{name}: {named}"
        for name, text in texts()
        if name not in DATED
        for named in sorted(set(re.findall(pattern, text)))
        if not any((ROOT / folder / named).exists() for folder in ("", "docs", "benchmarks"))
    ]
    assert dangling == []
