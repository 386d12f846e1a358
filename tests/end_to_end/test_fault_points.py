"""Where the tests of this folder put their faults exists: those tests are slow, and a function may move at any time."""

from __future__ import annotations

import ast
import pkgutil
import re
from pathlib import Path

import pytest

POINT = re.compile(r"trainer(\.\w+)+:\w+(\.\w+)?")


def points() -> list[str]:
    """Every ``module:name`` of the trainer that a test of this folder names; f-strings of ENGINE are left out."""
    trees = [ast.parse(file.read_text()) for file in Path(__file__).parent.glob("test_*.py")]
    said = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return sorted({text for text in said if isinstance(text, str) and POINT.fullmatch(text)})


def test_there_are_fault_points() -> None:
    assert len(points()) > 10


@pytest.mark.parametrize("point", points())
def test_every_fault_point_exists(point: str) -> None:
    if "vllm" in point:
        pytest.importorskip("vllm", reason="vLLM is not installed")
    assert callable(pkgutil.resolve_name(point))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("trainer.storage.checkpoint", "save_file"),
        ("trainer.update.gradient", "Learner.leap"),
        ("trainer.nowhere", "save"),
    ],
)
def test_a_point_that_has_moved_is_noticed(module: str, name: str) -> None:
    with pytest.raises((AttributeError, ImportError)):
        pkgutil.resolve_name(f"{module}:{name}")
