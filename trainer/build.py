"""From a resolved configuration to checked instances. The import path in ``_target_`` is the registry; there is no
other.

Called by ``__main__.py``. It must not read files or start anything.
"""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config import (
    LIST_SLOTS,
    PLAIN_GROUPS,
    SINGLE_SLOTS,
    AccountingConfig,
    CheckpointConfig,
    ConfigError,
    HardwareConfig,
    ModelConfig,
    OptimConfig,
    TrackingConfig,
    component_defaults,
    nearest,
    require,
)
from trainer.engine.base import EngineConfig
from trainer.evaluate import EvaluationConfig
from trainer.identity import NOT_IDENTITY, signature
from trainer.objective.base import (
    Advantage,
    Controller,
    Reduction,
    Regularizer,
    Shaping,
    Surrogate,
    Weight,
)
from trainer.objective.objective import Objective
from trainer.objective.rollouts.base import RolloutPlan
from trainer.tasks.base import Task

BASES: dict[str, type] = {
    "task": Task,
    "engine": object,
    "rollout": RolloutPlan,
    "shaping": Shaping,
    "advantage": Advantage,
    "weight": Weight,
    "surrogate": Surrogate,
    "regularizer": Regularizer,
    "controller": Controller,
    "reduction": Reduction,
    "evaluation": EvaluationConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "accounting": AccountingConfig,
    "checkpoint": CheckpointConfig,
    "hardware": HardwareConfig,
    "tracking": TrackingConfig,
}
"""What the members of a group have to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, ready to start: every component built and checked."""

    seed: int
    steps: int
    signature: str
    task: Task
    model: ModelConfig
    engine: EngineConfig
    rollout: RolloutPlan
    objective: Objective
    optim: OptimConfig
    evaluation: EvaluationConfig
    accounting: AccountingConfig
    checkpoint: CheckpointConfig
    hardware: HardwareConfig
    tracking: TrackingConfig


def build_component(node: object, key: str) -> Any:
    """The instance a mapping with ``_target_`` describes.

    Raises :class:`ConfigError` naming ``key`` for a missing target, an unknown field (and its nearest valid name), a
    value of the wrong type, or whatever the component itself refuses.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{key} has no _target_: give the import path of its component, as the files under conf/ do")
    target = str(node["_target_"])
    fields = component_defaults(target)
    for name in node:
        if name not in fields and name != "_target_":
            raise ConfigError(
                f"{key}.{name} is not a setting of {target.rpartition('.')[2]}: {nearest(str(name), fields)}"
            )
    module, _, name = target.rpartition(".")
    component = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(component)
    values = {
        field: _coerce(value, hints[field], f"{key}.{field}") for field, value in node.items() if field != "_target_"
    }
    return component(**values)


def _coerce(value: Any, hint: Any, key: str) -> Any:
    """``value`` as the annotated type, where that is possible without guessing; otherwise a :class:`ConfigError`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _coerce(value, next(kind for kind in arguments if kind is not type(None)), key)
    if origin is typing.Literal:
        require(value in arguments, key, value, f"choose one of {', '.join(map(str, arguments))}")
        return value
    if origin in (tuple, list) and isinstance(value, Sequence) and not isinstance(value, str):
        kinds = [arguments[0]] * len(value) if origin is list or arguments[-1] is Ellipsis else list(arguments)
        require(len(kinds) == len(value), key, value, f"{len(kinds)} values are expected")
        return origin(_coerce(item, kind, key) for item, kind in zip(value, kinds, strict=True))
    if (origin or hint) in (dict, Mapping) and isinstance(value, Mapping):
        return {str(name): _coerce(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        require(value == value and abs(value) != float("inf"), key, value, "give a finite number")
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{key}={value!r} is a {type(value).__name__}, but {getattr(hint, '__name__', hint)} is expected")


def _member(node: object, group: str, key: str) -> Any:
    """A component of ``group``; raises :class:`ConfigError` for one that belongs elsewhere."""
    member, base = build_component(node, key), BASES[group]
    require(isinstance(member, base), f"{key}._target_", type(member).__name__, f"{group} takes a {base.__name__}")
    return member


def build_run(config: Mapping[str, Any]) -> Run:
    """Everything a run needs from its resolved configuration; raises :class:`ConfigError` with one clear sentence."""
    known = {"seed", "steps", *SINGLE_SLOTS, *LIST_SLOTS, *PLAIN_GROUPS}
    for key in config:
        if key not in known | NOT_IDENTITY:
            raise ConfigError(f"{key} is not a part of a configuration: {nearest(str(key), known)}")
    for key in known:
        require(
            key in config,
            key,
            None,
            "it is missing from the configuration; start runs through sweep.py, which fills in defaults",
        )
    seed, steps = _coerce(config["seed"], int, "seed"), _coerce(config["steps"], int, "steps")
    require(seed >= 0, "seed", seed, "a seed is at least 0")
    require(steps >= 0, "steps", steps, "give a number of training steps, at least 0")
    single: dict[str, Any] = {slot: _member(config[slot], slot, slot) for slot in (*SINGLE_SLOTS, *PLAIN_GROUPS)}
    lists: dict[str, Any] = {}
    for slot in LIST_SLOTS:
        nodes = config[slot] or {}
        require(isinstance(nodes, Mapping), slot, nodes, "give a mapping from names to components, as conf/ does")
        lists[slot] = {name: _member(node, slot, f"{slot}.{name}") for name, node in nodes.items()}
    slots = {slot: single.pop(slot) for slot in ("shaping", "advantage", "surrogate", "reduction")}
    objective = Objective(**slots, **lists)
    return Run(seed=seed, steps=steps, signature=signature(config), objective=objective, **single)
