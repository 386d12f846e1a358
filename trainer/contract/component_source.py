"""Fields and defaults of a component, read from its source file without importing it.

So ``sweeps`` can fill in and check a configuration although components import torch.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import json

from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError, nearest


@functools.cache
def class_body(target: str) -> tuple[ast.ClassDef, str]:
    """Syntax of the component class at import path ``target`` and its file; :class:`ConfigError` if there is none."""
    module, _, name = target.rpartition(".")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not module.startswith(("trainer.", "sweeps.")) or not path.is_file():
        raise ConfigError(
            f"_target_={target!r} names no file of the project: expected {module or '?'} as a path under trainer/"
        )
    classes = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise ConfigError(f"_target_={target!r} names no class in {path.relative_to(ROOT)}: {nearest(name, classes)}")
    return classes[name], str(path)


@functools.cache
def _defaults_json(target: str) -> str:
    body, path = class_body(target)
    defaults: dict[str, object] = {}
    for node in body.body:
        if (
            not isinstance(node, ast.AnnAssign)
            or not isinstance(node.target, ast.Name)
            or "ClassVar" in ast.unparse(node.annotation)
        ):
            continue
        defaults[node.target.id] = _literal(node.value, f"{path}: {body.name}.{node.target.id}")
    return json.dumps(defaults)


def _literal(node: ast.expr | None, where: str) -> object:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "field":
        factories = [ast.unparse(word.value) for word in node.keywords if word.arg == "default_factory"]
        return {} if factories == ["dict"] else []
    if node is not None:
        with contextlib.suppress(ValueError, TypeError):
            return ast.literal_eval(node)
    raise ConfigError(f"{where} needs a literal default, so that its configuration can be read without importing it")


def component_annotations(target: str) -> dict[str, str]:
    """Field names of the component dataclass at import path ``target`` and their annotations, read from its source."""
    fields = [node for node in class_body(target)[0].body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target): ast.unparse(node.annotation) for node in fields}


def component_defaults(target: str) -> dict[str, object]:
    """Field names and defaults of the component dataclass at import path ``target``, read from its source.

    Raises :class:`ConfigError` when there is no such class or a default is not a literal.
    """
    defaults: dict[str, object] = json.loads(_defaults_json(target))
    return defaults


@functools.cache
def text_settings(target: str) -> frozenset[str]:
    """Names of the fields of a component that are texts, may be None, or are mappings of texts."""
    texts = {"str", "str | None", "dict[str, str]"}
    return frozenset(name for name, annotation in component_annotations(target).items() if annotation in texts)
