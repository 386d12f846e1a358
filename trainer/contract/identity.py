"""The signature of a run: a hash of the settings that can change its metrics.

It names the run folder and tags the MLflow run. What is left out of it has been shown not to matter: a test runs both
values of every such setting and compares the bytes of ``metrics.jsonl`` (``tests/trainer/contract/test_inert.py``).
Must not import torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 2
"""Raised when the meaning of a configuration changes, so that old results are never mistaken for new ones.

2: hardware is part of the identity, resolved before a run is frozen; components go by their class name and no longer by
the file they are in; run.yaml says its schema.
"""

NOT_IDENTITY = frozenset(
    {"checkpoint", "factor", "hydra", "launcher", "output", "plan", "provenance", "schema", "search", "signature"}
    | {"study", "tracking", "method", "entropy_target", "retry", "max_hours", "yes"}
)
"""Top-level keys that move no byte of a curve. ``entropy_target`` does by values of controllers that refer to it, and
these are inside."""


ADDED: Mapping[str, Mapping[str, object]] = {
    "AccountingConfig": {"rollouts_every": 0},
    "Countdown": {"cluster_by": "numbers", "clusters": 64},
    "EquationTask": {"subset": "random", "clusters": 64},
    "EvaluationConfig": {"top_p": 1.0, "suite_sampling": {}},
    "HardwareConfig": {"memory_gib": None, "sharding": "none"},
    "JsonlTask": {"subset": "random", "clusters": 64},
    "ModelConfig": {
        **{"attention": None, "end_tokens": [], "pad_token": None},
        **{"lora_rank": 0, "lora_alpha": 32.0, "lora_dropout": 0.0, "lora_targets": []},
    },
    "ReasoningGymTask": {"subset": "random", "clusters": 64, "pool_size": 4096},
}
"""Settings of a class that came after schema 2, with the value that means what was before they came: with it they are
no part of the identity, so that runs of before are found. No default of theirs may be another."""


def identity(config: Mapping[str, object]) -> dict[str, object]:
    """The part of a resolved configuration that can move a curve, with the schema number."""
    return {"schema": SCHEMA} | {key: by_class_name(value) for key, value in config.items() if key not in NOT_IDENTITY}


def by_class_name(value: Any) -> Any:
    """``value`` with components by their class name alone: a file may move, an experiment stays what it was.
    Settings of :data:`ADDED` are left out where they say nothing new."""
    if isinstance(value, Mapping):
        neutral = ADDED.get(str(_class_name(value.get("_target_"))), {})
        kept = {key: item for key, item in value.items() if key not in neutral or item != neutral[key]}
        return {key: _class_name(item) if key == "_target_" else by_class_name(item) for key, item in kept.items()}
    return [by_class_name(item) for item in value] if isinstance(value, list | tuple) else value


def _class_name(target: object) -> object:
    return target.rpartition(".")[2] if isinstance(target, str) else target


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def signature(config: Mapping[str, object]) -> str:
    """12 hex digits of SHA-256 over the canonical JSON of :func:`identity`; names the run folder."""
    return _digest(identity(config))


def one_rank_signature(config: Mapping[str, Any]) -> str:
    """:func:`signature` of the same run on one rank: equal for runs that differ in nothing but how many ranks share
    the work, and whether the weights too."""
    return signature({**config, "hardware": {**config["hardware"], "processes": 1, "sharding": "none"}})


def group_signature(config: Mapping[str, object]) -> str:
    """:func:`signature` without the seed: equal for the runs that are averaged over."""
    return _digest({key: value for key, value in identity(config).items() if key != "seed"})
