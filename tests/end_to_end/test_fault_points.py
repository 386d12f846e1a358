"""Where the tests of this folder put their faults exists: those tests are slow, and a function may move at any time."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from trainer.contract.paths import ROOT

POINT = re.compile(r"(trainer(?:\.\w+)+):(\w+)(?:\.(\w+))?")


def points() -> set[str]:
    """Every ``module:name`` of the trainer that a test of this folder names; f-strings of ENGINE are left out."""
    trees = [ast.parse(file.read_text()) for file in Path(__file__).parent.glob("test_*.py")]
    said = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in said if isinstance(text, str) and POINT.fullmatch(text)}


def test_every_fault_point_exists() -> None:
    found = points()
    assert len(found) > 10
    assert {point for point in found if not exists(*POINT.fullmatch(point).groups())} == set()  # type: ignore[union-attr]


def test_a_point_that_has_moved_is_noticed() -> None:
    assert not exists("trainer.storage.checkpoint", "save_file", None)
    assert not exists("trainer.update.gradient", "Learner", "leap")
    assert not exists("trainer.nowhere", "save", None)


def exists(module: str, name: str, method: str | None) -> bool:
    """Whether the module's text defines or imports the name, and the class of that name the method."""
    file = ROOT / (module.replace(".", "/") + ".py")
    if not file.is_file():
        return False
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom | ast.Import) and name in {a.asname or a.name for a in node.names}:
            return method is None
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return method is None or any(
                isinstance(part, ast.FunctionDef) and part.name == method for part in node.body
            )
    return False
