"""The reward-entropy law R = -a e^H + b: fitted to a run or a level, and as a prediction from its beginning.

Pure functions, called by :mod:`dashboards.summary`. Must not read runs. H in nats per token, R in reward units.
Cui et al. 2025, "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

FINAL_STEPS = 5
EARLY_FRAC = 0.15
_FEWEST_POINTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A least-squares fit of R = -a e^H + b."""

    a: float
    b: float
    r_squared: float
    """Share of the reward's variance explained in the sample; NaN where the reward does not vary."""
    points: int

    def reward(self, entropy: ArrayLike) -> np.ndarray:
        """Predicted reward at ``entropy`` (nats)."""
        return -self.a * np.exp(np.asarray(entropy, dtype=np.float64)) + self.b


def fit_law(entropy: ArrayLike, reward: ArrayLike) -> Law | None:
    """Least squares of [n] reward on e^[n] entropy; None below 3 finite points or where entropy does not vary."""
    heat = np.exp(np.asarray(entropy, dtype=np.float64))
    gain = np.asarray(reward, dtype=np.float64)
    keep = np.isfinite(heat) & np.isfinite(gain)
    heat, gain = heat[keep], gain[keep]
    if heat.size < _FEWEST_POINTS or np.ptp(heat) < 1e-12:
        return None
    slope = float(np.cov(heat, gain, bias=True)[0, 1] / heat.var())
    offset = float(gain.mean() - slope * heat.mean())
    residual = float(((gain - slope * heat - offset) ** 2).sum())
    spread = float(((gain - gain.mean()) ** 2).sum())
    r_squared = 1 - residual / spread if spread > 0 else math.nan
    return Law(a=-slope, b=offset, r_squared=r_squared, points=int(heat.size))


def end_error(entropy: ArrayLike, reward: ArrayLike, early_frac: float = EARLY_FRAC) -> float:
    """Predicted minus actual final reward of one run, the law fitted on its first ``early_frac`` steps (at least 3).

    Final reward and final entropy are means of the last 5 steps. NaN where the beginning allows no fit.
    """
    heat, gain = np.asarray(entropy, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    early = max(_FEWEST_POINTS, math.ceil(early_frac * heat.size))
    law = fit_law(heat[:early], gain[:early]) if heat.size > early else None
    if law is None:
        return math.nan
    return float(law.reward(heat[-FINAL_STEPS:].mean()) - gain[-FINAL_STEPS:].mean())
