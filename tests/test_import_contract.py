"""Who may import whom (docs/architecture.md), and the caps on the size of files and functions, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.contract.paths import ROOT

FORBIDDEN = {
    "trainer": {"sweeps", "dashboards", "hydra", "hydra_plugins", "submitit", "optuna", "plotly", "pandas"},
    "sweeps": {"torch", "vllm", "dashboards", "transformers", "accelerate", "plotly"},
    "dashboards": {"trainer", "sweeps", "torch", "vllm", "hydra", "submitit", "transformers", "accelerate"},
}
"""Top-level packages that no file of a package may import."""

ONLY_IN = {
    "vllm": {"trainer/engine/vllm.py", "trainer/engine/vllm_lockstep.py"},
    "mlflow": {
        "trainer/tracking/mlflow_copy.py",
        "trainer/tracking/mlflow_model.py",
        "trainer/contract/store.py",
    },
}
"""Within ``trainer``: the files that know a heavy dependency."""

SHARED = "trainer.contract."
"""What ``sweeps`` may know of the trainer."""

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 70


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import in a file, those inside functions and under TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively: write the whole path"
            assert node.module is not None
            # `from trainer.contract import config` is an import of trainer.contract.config as much as `import
            # trainer.contract.config` is.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            literal = node.args and isinstance(node.args[0], ast.Constant)
            if literal:
                yield node.lineno, str(node.args[0].value)  # type: ignore[attr-defined]


def offences(package: str, refused: Iterator[tuple[Path, int, str]]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line} imports {name}" for path, line, name in refused]


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_what_it_must_not(package: str) -> None:
    bad = (
        (path, line, name)
        for path in files(package)
        for line, name in imports(path)
        if name.partition(".")[0] in FORBIDDEN[package]
    )
    assert offences(package, bad) == []


def test_heavy_dependencies_of_the_trainer_live_behind_one_file_each() -> None:
    bad = (
        (path, line, name)
        for path in files("trainer")
        for line, name in imports(path)
        if str(path.relative_to(ROOT)) not in ONLY_IN.get(name.partition(".")[0], {str(path.relative_to(ROOT))})
    )
    assert offences("trainer", bad) == []
    for dependency, homes in ONLY_IN.items():
        for home in homes:
            assert any(name.partition(".")[0] == dependency for _, name in imports(ROOT / home)), (
                f"{home} without {dependency}"
            )


def test_only_the_report_of_a_search_knows_optuna_among_the_dashboards() -> None:
    knowing = {
        path.parent.name
        for path in files("dashboards")
        for _, name in imports(path)
        if name.partition(".")[0] == "optuna"
    }
    assert knowing == {"search"}


def test_sweeps_know_of_the_trainer_its_contract_only() -> None:
    bad = (
        (path, line, name)
        for path in files("sweeps")
        for line, name in imports(path)
        if name.partition(".")[0] == "trainer" and not f"{name}.".startswith(SHARED)
    )
    assert offences("sweeps", bad) == []


def test_the_parser_sees_imports_wherever_they_hide(tmp_path: Path) -> None:
    source = (
        "import a.b\nfrom c import d\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import e\n"
        "def f():\n    from g.h import i as j\n    importlib.import_module('k.l')\n    __import__('m')\n"
    )
    (tmp_path / "x.py").write_text(source)
    assert {name for _, name in imports(tmp_path / "x.py")} == {
        "a.b",
        "c.d",
        "typing.TYPE_CHECKING",
        "e",
        "g.h.i",
        "k.l",
        "m",
    }


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        *[
            (f"trainer.contract.{path.stem}", ("torch", "numpy", "omegaconf", "mlflow"))
            for path in files("trainer/contract")
        ],
        ("trainer.contract.settings", ("torch", "numpy", "omegaconf", "mlflow", "trainer.contract.config")),
        ("sweeps.cli.command", ("torch", "transformers", "vllm")),
        ("trainer.metrics.table", ("torch",)),
        ("dashboards.page.report", ("torch", "trainer", "sweeps")),
    ],
)
def test_importing_stays_light(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == "[]"


def test_files_and_functions_stay_readable() -> None:
    offenders = []
    for path in [*files("trainer"), *files("sweeps"), *files("dashboards")]:
        text, where = path.read_text(), path.relative_to(ROOT)
        if len(text.splitlines()) > MAX_FILE_LINES:
            offenders.append(f"{where} has {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    offenders.append(f"{where}:{node.lineno} {node.name} has {lines} lines")
    assert offenders == []


def test_a_class_name_stands_for_one_class() -> None:
    homes: dict[str, list[str]] = {}
    for path in [*files("trainer"), *files("sweeps"), *files("dashboards")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert homes["Prompt"]
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}
