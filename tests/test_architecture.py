"""The tree is the one of docs/architecture.md: every folder has its sentence there, imports go downwards only, and
tests mirror the packages."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from trainer.contract.paths import ROOT

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


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of every import; the name is empty for ``import module``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


def arrows(
    package: Path, place: Callable[[str], str] = room, visit: Callable[[ast.AST], ast.AST] = lambda tree: tree
) -> dict[str, set[str]]:
    """Which rooms import which, imports for type checking and inside functions included."""
    known = modules(package)
    graph: dict[str, set[str]] = defaultdict(set)
    for module, path in known.items():
        graph[place(module)]
        tree = visit(ast.parse(path.read_text()))
        for name in (f"{source}.{name}".rstrip(".") for source, name in imported(tree)):
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and place(name) not in (place(module), "__init__"):
                graph[place(module)].add(place(name))
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


class WithoutTypes(ast.NodeTransformer):
    """Drops what is imported for type checking alone: no circle when the program runs."""

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    assert circle(arrows(ROOT / package, place=str, visit=WithoutTypes().visit)) == []


def defined(tree: ast.Module) -> set[str]:
    """Names that a module makes itself, those under ``if`` and ``try`` included."""
    inside = (node for statement in tree.body for node in [statement, *_branches(statement)])
    names = set()
    for node in inside:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def _branches(statement: ast.stmt) -> Iterator[ast.stmt]:
    if isinstance(statement, ast.If | ast.Try | ast.With):
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.stmt):
                yield from (child, *_branches(child))


def test_a_name_is_imported_from_where_it_is_defined() -> None:
    known = {name: path for package in PACKAGES for name, path in modules(ROOT / package).items()}
    own = {name: defined(ast.parse(path.read_text())) for name, path in known.items()}
    files = [path for folder in (*PACKAGES, "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")]
    passed_on = [
        f"{path.relative_to(ROOT)}: {module} does not define {name}"
        for path in files
        for module, name in imported(ast.parse(path.read_text()))
        if name and module in known and name not in own[module] and f"{module}.{name}" not in known
    ]
    assert len(files) > 500
    assert passed_on == []


def written(package: Path, sources: dict[str, str]) -> Path:
    for name, text in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    sources = {"a/x.py": "from p.b.y import f", "b/y.py": "def g():\n    from p.a import x", "c.py": ""}
    package = written(tmp_path / "p", sources)
    assert arrows(package)["a"] == {"b"}
    assert set(circle(arrows(package))) == {"a", "b"}


def test_imports_for_types_make_no_circle_of_modules(tmp_path: Path) -> None:
    package = written(tmp_path / "p", {"x.py": "if TYPE_CHECKING:\n    import p.y", "y.py": "import p.x"})
    assert set(circle(arrows(package, place=str))) == {"p.x", "p.y"}
    assert arrows(package, place=str, visit=WithoutTypes().visit) == {"p.x": set(), "p.y": {"p.x"}}


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
