"""The fake trainer with a landscape: what a run reaches is a known function of its configuration and seed.

quality = 1 - (clip_low - 0.3)^2 - (clip_high - 0.5)^2 + noise(seed)          best at (0.3, 0.5)
reached = quality * (1 - 0.5^(step + 1))                                      so bad runs are bad early
entropy = 0.3, from the third step on 0.001 where clip_low < 0.02, 9 where clip_high > 5
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import fake_trainer

NOISE = 0.01


def quality(clip_low: float, clip_high: float) -> float:
    """Without noise."""
    return 1 - (clip_low - 0.3) ** 2 - (clip_high - 0.5) ** 2


def measured(config: dict[str, Any], step: int) -> dict[str, float]:
    low, high = float(config["surrogate"]["clip_low"]), float(config["surrogate"]["clip_high"])
    noise = random.Random(config["seed"]).gauss(0.0, NOISE)
    reached = (quality(low, high) + noise) * (1 - 0.5 ** (step + 1))
    entropy = 0.3 if step < 3 else 0.001 if low < 0.02 else 9.0 if high > 5 else 0.3
    return {
        "policy/entropy": entropy,
        "rollout/reward": reached,
        "eval/heldout/avg_at_16": reached,
        "eval/heldout/pass_at_16": 1 - high,
    }


if __name__ == "__main__":
    fake_trainer.measured = measured
    fake_trainer.STEP_S = float(os.environ.get("FAKE_STEP_S", "0.02"))
    sys.exit(fake_trainer.main())
