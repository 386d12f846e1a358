"""The scorer of a procedural task of reasoning-gym, which is that package's own code."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.contract.settings import ConfigError, nearest

INSTALL = "the package reasoning-gym is not installed: run `make reasoning-gym`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gym:
    """Score of an answer to problem ``data["index"]`` of a data set that is made again here, from its seed."""

    weight: float = 1.0
    name: str = "chain_sum"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    size: int = 1

    def score(self, response: str, data: Mapping[str, object]) -> float:
        """0 to 1 for an extracted answer, as the data set scores it."""
        problems = dataset(self.name, json.dumps(self.settings, sort_keys=True), self.seed, self.size)
        return float(problems.score_answer(response, problems[data["index"]]))


@functools.lru_cache(maxsize=4)
def dataset(name: str, settings: str, seed: int, size: int) -> Any:
    """A data set of reasoning-gym; ``settings`` is JSON. :class:`ConfigError` if it has no such name or setting."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ConfigError(f"task reasoning_gym: {INSTALL} ({error})") from error
    if name not in DATASETS:
        raise ConfigError(f"task.name={name!r} is no data set of reasoning-gym: {nearest(name, DATASETS)}")
    try:
        return reasoning_gym.create_dataset(name, size=size, seed=seed, **json.loads(settings))
    except (AssertionError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["it refuses them"])[0]
        raise ConfigError(f"task.settings={settings} cannot be used for reasoning-gym's {name}: {reason}") from error
