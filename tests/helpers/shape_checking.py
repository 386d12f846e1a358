"""The shapes that the trainer's signatures state, checked at every call while the suite runs.

jaxtyping's import hook decorates the functions with beartype on the shapes alone: mypy judges the other types, and
tests hand over stand-ins that satisfy no class.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from beartype import beartype
from jaxtyping import install_import_hook

SHAPES = ("Float[", "Int[", "Bool[")


def install(root: Path) -> None:
    """Check every module below ``root``/trainer that states shapes. Before anything of the trainer is imported."""
    stating = [path for path in sorted((root / "trainer").rglob("*.py")) if "from jaxtyping import" in path.read_text()]
    modules = [".".join(path.relative_to(root).with_suffix("").parts) for path in stating]
    install_import_hook(modules, "shape_checking.check")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which raises at a call whose tensors contradict its jaxtyping annotations.

    A ``TokenBatch`` may have columns of unequal sizes: a test of one member makes those that the member reads.
    """
    shapes = {
        name: kind for name, kind in function.__annotations__.items() if any(shape in str(kind) for shape in SHAPES)
    }
    if not shapes or function.__qualname__ == "TokenBatch.__init__":
        return lambda *args, **kwargs: None
    function.__annotations__ = shapes
    return beartype(function)
