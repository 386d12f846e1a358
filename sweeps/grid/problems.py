"""Checks one resolved configuration without importing the trainer: missing groups, unknown keys, top-level values.

It looks at one cell and at nothing on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from sweeps.compose.components import missing_keys, unknown_keys
from sweeps.compose.compose import groups
from sweeps.compose.presets import COMPONENTS
from trainer.contract.config import LIST_SLOTS, HardwareConfig, TrackingConfig
from trainer.contract.settings import ConfigError, Seed, Steps, coerced, filled

INVOCATION: dict[str, Any] = {
    "seed": Seed,
    "steps": Steps,
    "output": str,
    "plan": bool,
    "yes": bool,
    "retry": Literal["failed", "lost", "all"] | None,
}
"""Settings that stand at the top of a configuration."""


def config_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """An error message for everything that is wrong with a resolved configuration."""
    for key in sorted(COMPONENTS - {*LIST_SLOTS}):
        if not isinstance(config.get(key), Mapping) or "_target_" not in config[key]:
            yield f"{key} is missing from the configuration: choose one with {key}=NAME ({', '.join(groups()[key])})"
    for key, hint in INVOCATION.items():
        if key not in config:
            yield f"{key} is missing from the configuration: give {key}=VALUE instead of deleting it"
        else:
            yield from _refusals(coerced, config[key], hint, key)
    yield from unknown_keys(config)
    yield from missing_keys(config)
    yield from _not_finite(config)
    for key, kind in (("tracking", TrackingConfig), ("hardware", HardwareConfig)):  # the launcher itself reads these
        node = config.get(key)
        if isinstance(node, Mapping) and not [*unknown_keys(node, key), *_not_finite(node, key)]:
            values = {name: value for name, value in node.items() if name != "_target_"}
            yield from _refusals(filled, kind, values, key)


def _refusals(check: Callable[..., object], *arguments: object) -> Iterator[str]:
    try:
        check(*arguments)
    except ConfigError as error:
        yield str(error)


def _not_finite(node: Any, where: str = "") -> Iterator[str]:
    """An error message for every NaN or infinity: configurations are written as YAML, compared and hashed."""
    if isinstance(node, float) and not math.isfinite(node) and where != "max_hours":
        yield f"{where}={node!r} cannot be used: give a finite number"
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _not_finite(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _not_finite(value, f"{where}[{index}]")
