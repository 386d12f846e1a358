"""A landscape to search in: what a run reaches is a known function of its configuration and seed.

quality = 1 - (clip_low - 0.3)^2 - (clip_high - 0.5)^2              best at (0.3, 0.5)
reached = (quality + noise(seed)) * (1 - 0.5^(step + 1))            so bad runs are bad early
entropy = 0.3; from the third step on 0.001 where clip_low < 0.02, 9 where clip_high > 5
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

NOISE = 0.01
BEST = (0.3, 0.5)


def quality(clip_low: float, clip_high: float) -> float:
    """Without noise."""
    return 1 - (clip_low - BEST[0]) ** 2 - (clip_high - BEST[1]) ** 2


def measured(config: Mapping[str, Any], step: int) -> dict[str, float]:
    """The metrics of a step."""
    surrogate = config["surrogate"]
    low, high = float(surrogate.get("clip_low", 0.2)), float(surrogate.get("clip_high", 0.2))
    noise = random.Random(config["seed"]).gauss(0.0, NOISE)
    reached = (quality(low, high) + noise) * (1 - 0.5 ** (step + 1))
    entropy = 0.3 if step < 3 else 0.001 if low < 0.02 else 9.0 if high > 5 else 0.3
    return {
        "policy/entropy": entropy,
        "rollout/reward": reached,
        "eval/heldout/avg_at_16": reached,
        "eval/heldout/pass_at_1": reached,
        "eval/heldout/pass_at_16": 1 - (high - 0.2) ** 2,
    }
