"""Prunes a run whose policy entropy has collapsed below, or exploded above, a bound relative to its first value.

Works with any number of objectives; Optuna's pruners work with one only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ENTROPY = "policy/entropy"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyRule:
    """Bounds relative to the entropy of the first step, so that they hold for any model."""

    collapse: float = 0.1
    """Lower bound as a fraction of the first entropy; 0: none."""
    explosion: float = 4.0
    """Upper bound as a multiple of the first entropy; 0: none."""
    patience: int = 3
    """Steps in a row outside the bounds after which a run is pruned."""

    def verdict(self, entropies: Sequence[float]) -> str | None:
        """Why a run with these entropies (nats, one per step from the first) is pruned; None if it is not."""
        if not entropies or len(entropies) <= self.patience:
            return None
        first, recent = entropies[0], entropies[-self.patience :]
        if self.explosion and all(not math.isfinite(value) or value > self.explosion * first for value in recent):
            return f"entropy explosion: {recent[-1]:.3g} nats, {self.explosion:g} times the first {first:.3g} exceeded"
        if self.collapse and all(value < self.collapse * first for value in recent):
            return f"entropy collapse: {recent[-1]:.3g} nats, below {self.collapse:g} of the first {first:.3g}"
        return None
