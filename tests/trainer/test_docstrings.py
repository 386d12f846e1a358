"""Every public function of the trainer that takes or gives tensors states their shapes and units."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANNOTATED = re.compile(r"(?:Float|Int|Bool)\[(?:torch\.)?Tensor, [^\]]*\]")
TENSOR = re.compile(r"\bTensor\b")
SHAPE = re.compile(r"\[(?:|any shape|\w+(?:, ?[\w ]+)*)\]|\bof the same shape\b")
UNIT = re.compile(r"\b(?:nats?|dimensionless|units?|token ids|indices|probabilit\w+|standard deviations?)\b", re.I)
PROTOCOL = {"forward", "backward", "jvp"}
"""Methods of ``torch.autograd.Function``: the class states the equation."""

Documented = tuple[str, str, str]
"""Name, types of the signature, and everything that the docstrings say of it."""


def functions(source: str, hooks: dict[str, str]) -> Iterator[Documented]:
    """Public functions that have tensors in their signatures.

    A method may leave the description to its class and to the hook that it overrides (``hooks``).
    """
    yield from _functions(ast.parse(source), "", hooks)


def _functions(node: ast.Module | ast.ClassDef, around: str, hooks: dict[str, str]) -> Iterator[Documented]:
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _functions(child, ast.get_docstring(child) or "", hooks)
        elif isinstance(child, ast.FunctionDef):
            arguments = [*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs]
            types = [value for value in (*(a.annotation for a in arguments), child.returns) if value is not None]
            signature = " ".join(ast.unparse(value) for value in types)
            public = not child.name.startswith("_") or child.name == "__call__"
            if public and child.name not in PROTOCOL and TENSOR.search(signature):
                own = ast.get_docstring(child) or hooks.get(child.name, "")
                yield child.name, signature, f"{own}\n{around}"


def missing(signature: str, described: str) -> list[str]:
    """What is not stated: "shape", "unit"."""
    shapes = not TENSOR.search(ANNOTATED.sub("", signature)) or SHAPE.search(described)
    return [what for what, stated in (("shape", shapes), ("unit", UNIT.search(described))) if not stated]


def hooks() -> dict[str, str]:
    """Descriptions of the methods that members and engines override."""
    bases = [ROOT / "trainer" / package / "base.py" for package in ("objective", "engine")]
    return {name: text for path in bases for name, _, text in functions(path.read_text(), {}) if name != "__call__"}


def test_every_public_tensor_function_states_shapes_and_units() -> None:
    inherited = hooks()
    paths = sorted((ROOT / "trainer").rglob("*.py"))
    every = [(path, *function) for path in paths for function in functions(path.read_text(), inherited)]
    unstated = [
        f"{path.relative_to(ROOT)}: {name}: no {' and no '.join(missing(signature, described))}"
        for path, name, signature, described in every
        if missing(signature, described)
    ]
    assert len(every) > 100
    assert not unstated, "\n".join(unstated)


@pytest.mark.parametrize(
    ("signature", "described", "unstated"),
    [
        ("Float[Tensor, 'N T']", "Log-probs, nats.", []),
        ("Float[Tensor, 'N T']", "Log-probs.", ["unit"]),
        ("Float[Tensor, 'N'] Tensor", "Two columns, nats.", ["shape"]),
        ("Tensor", "Rows [N, T] of probabilities.", []),
        ("Tensor", "A row.", ["shape", "unit"]),
    ],
)
def test_what_counts_as_stated(signature: str, described: str, unstated: list[str]) -> None:
    assert missing(signature, described) == unstated
