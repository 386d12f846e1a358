"""The tree is the one of docs/architecture.md: every folder has its sentence there, imports go downwards only, and
tests mirror the packages."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from trainer.contract.config import ROOT

PACKAGES = ("trainer", "sweeps", "dashboards")
PAGE = (ROOT / "docs" / "architecture.md").read_text()
BESIDE_THE_MIRRORS = {"gpu", "contract", "golden", "end_to_end", "helpers", "conf", "benchmarks"}


def modules(package: Path) -> dict[str, Path]:
    """Dotted name of every module below ``package``."""
    named = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def room(module: str) -> str:
    """The folder or top-level file of a package that a module belongs to: ``trainer.policy.model`` -> ``policy``."""
    return f"{module}.__init__".split(".")[1]


def arrows(package: Path) -> dict[str, set[str]]:
    """Which rooms import which, imports for type checking and inside functions included."""
    known = modules(package)
    graph: dict[str, set[str]] = defaultdict(set)
    for module, path in known.items():
        graph[room(module)]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                while name and name not in known:
                    name = name.rpartition(".")[0]
                if name and room(name) not in (room(module), "__init__"):
                    graph[room(module)].add(room(name))
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of rooms, empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_downwards(package: str) -> None:
    assert circle(arrows(ROOT / package)) == []


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    package = tmp_path / "p"
    for name, text in {
        "a/x.py": "from p.b.y import f",
        "b/y.py": "def g():\n    from p.a import x",
        "c.py": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert arrows(package)["a"] == {"b"}
    assert set(circle(arrows(package))) == {"a", "b"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_has_its_sentence(package: str) -> None:
    folders = {path.parent.relative_to(ROOT).parts[1] for path in (ROOT / package).glob("*/*.py")}
    missing = [f"{package}/{name}/" for name in sorted(folders - {"plugins"}) if f"`{package}/{name}/`" not in PAGE]
    assert missing == []


def test_the_page_names_no_folder_that_is_not_there() -> None:
    named = [line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `") and "/` |" in line]
    assert len(named) > 25
    assert [name for name in named if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_mirror_the_tree(package: str) -> None:
    stray = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests" / package).glob("*/**/*.py")
        if not (ROOT / package / path.relative_to(ROOT / "tests" / package).parts[0]).is_dir()
    ]
    assert stray == []


def test_nothing_lies_beside_the_mirrors_but_what_concerns_all() -> None:
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/*.py")}
    assert folders - {*PACKAGES} <= BESIDE_THE_MIRRORS
