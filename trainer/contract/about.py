"""Source, status and departures of the members of the objective; docs, ``--help``, MLflow tags and reports print them.

Every member declares ``about: ClassVar[About] = About(...)`` with literal values, which are read from its source file
without importing it. Must not import torch, nor any member.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.contract.component_source import class_body, component_defaults
from trainer.contract.config import LIST_SLOTS
from trainer.contract.settings import ConfigError

Status = Literal["published", "released", "reconstructed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Source, status and departures of one member."""

    source: str
    """Paper with its arXiv number, or whose code; "common practice" where nobody can be named."""
    status: Status
    """``published`` follows the paper, ``released`` the authors' code where that differs, ``reconstructed`` is our
    reading of an incomplete source."""
    departures: str = "none"
    """In what it differs from the source."""
    released: Mapping[str, object] = field(default_factory=dict)
    """Settings that turn a published member into the released one, any of them being enough."""


SLOTS = ("rollout", "shaping", "advantage", "weight", "surrogate", "regularizer", "controller", "reduction")
"""Groups whose members make up the objective, in the order in which a step meets them."""

STATUSES = ("published", "released", "reconstructed")
"""What a member can be, by how far it is from the paper."""


def about(node: Mapping[str, object]) -> dict[str, str]:
    """``source``, ``status`` and ``departures`` of the configured member ``node``, read from its source.

    Raises :class:`ConfigError` when its class states none.
    """
    facts: dict[str, Any] = json.loads(_about_json(str(node["_target_"])))
    released: dict[str, object] = facts.pop("released", {})
    settings = component_defaults(str(node["_target_"])) | dict(node)
    if any(settings[key] == value for key, value in released.items()):
        facts["status"] = "released"
    return {"departures": "none"} | facts


def members(config: Mapping[str, Any]) -> dict[str, Mapping[str, object]]:
    """The configured members of the objective by path: ``advantage``, ``regularizer.siren`` ..."""
    nodes: dict[str, Mapping[str, object]] = {}
    for slot in SLOTS:
        node = config.get(slot) or {}
        nodes |= {f"{slot}.{name}": item for name, item in node.items()} if slot in LIST_SLOTS else {slot: node}
    return {path: node for path, node in nodes.items() if "_target_" in node}


def furthest(statuses: Iterable[str]) -> str:
    """The status that is furthest from a paper; published of none."""
    return max(statuses, key=STATUSES.index, default=STATUSES[0])


@functools.cache
def _about_json(target: str) -> str:
    body, path = class_body(target)
    stated = (node for node in body.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "about")
    call = next((node.value for node in stated), None)
    if isinstance(call, ast.Call):
        return json.dumps({str(word.arg): ast.literal_eval(word.value) for word in call.keywords})
    raise ConfigError(f"{path}: {body.name} does not say where it comes from: give it an About (docs/add_a_method.md)")
