"""From a resolved configuration to checked instances.

It must not read files or start anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.contract.components import build_component
from trainer.contract.config import (
    LIST_SLOTS,
    PLAIN_GROUPS,
    SINGLE_SLOTS,
    AccountingConfig,
    CheckpointConfig,
    HardwareConfig,
    ModelConfig,
    OptimConfig,
    TrackingConfig,
)
from trainer.contract.identity import NOT_IDENTITY, one_rank_signature, signature
from trainer.contract.settings import ConfigError, Seed, Steps, coerced, nearest, require
from trainer.engine.base import EngineConfig
from trainer.evaluation.evaluate import EvaluationConfig
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
from trainer.tasks.selected import selected

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
    one_rank_signature: str
    """What a checkpoint belongs to: it serves any number of ranks."""
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
    seed, steps = coerced(config["seed"], Seed, "seed"), coerced(config["steps"], Steps, "steps")
    single: dict[str, Any] = {slot: _member(config[slot], slot, slot) for slot in (*SINGLE_SLOTS, *PLAIN_GROUPS)}
    lists: dict[str, Any] = {}
    for slot in LIST_SLOTS:
        nodes = config[slot] or {}
        require(isinstance(nodes, Mapping), slot, nodes, "give a mapping from names to components, as conf/ does")
        lists[slot] = {name: _member(node, slot, f"{slot}.{name}") for name, node in nodes.items()}
    single["task"] = selected(single["task"], single["model"])
    slots = {slot: single.pop(slot) for slot in ("shaping", "advantage", "surrogate", "reduction")}
    objective = Objective(**slots, **lists)
    return Run(
        seed=seed,
        steps=steps,
        signature=signature(config),
        one_rank_signature=one_rank_signature(config),
        objective=objective,
        **single,
    )
