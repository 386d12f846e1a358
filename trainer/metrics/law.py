"""The reward-entropy law R = -a e^H + b, fitted by least squares.

Called at the end of a run and by analyses. It is linear regression of R on e^H, so no iteration is needed. It must not
read files. Source: METHODS 3.1 (arXiv 2505.22617).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class LawFit:
    """R = -a e^H + b with H in nats and R in reward units."""

    a: float
    """Reward bought per unit of e^H."""
    b: float
    """Intercept; b - a is the ceiling, the reward at H = 0."""
    r2: float
    """Share of the reward's variance explained in sample; nan if the reward is constant."""

    def predict(self, entropy: ArrayLike) -> NDArray[np.float64]:
        """Reward at an entropy in nats, any shape."""
        return -self.a * np.exp(np.asarray(entropy, np.float64)) + self.b

    @property
    def ceiling(self) -> float:
        """Predicted reward when no entropy is left."""
        return self.b - self.a


def fit_law(entropy: ArrayLike, reward: ArrayLike) -> LawFit:
    """Ordinary least squares over S points: entropy [S] in nats, reward [S].

    Raises ValueError for unequal shapes or fewer than two different entropies: a line through one abscissa is not
    defined.
    """
    nats, score = np.asarray(entropy, np.float64), np.asarray(reward, np.float64)
    if nats.shape != score.shape or nats.ndim != 1:
        raise ValueError(f"the reward-entropy fit got {nats.shape} entropies and {score.shape} rewards; pair them")
    x = np.exp(nats)
    if len(x) < 2 or np.ptp(x) == 0:
        raise ValueError(f"the reward-entropy fit needs two different entropies; {len(x)} points hold fewer")
    dx, dy = x - x.mean(), score - score.mean()
    slope = float(dx @ dy / (dx @ dx))
    intercept = float(score.mean() - slope * x.mean())
    spread = float(dy @ dy)
    residual = score - (slope * x + intercept)
    return LawFit(a=-slope, b=intercept, r2=1.0 - float(residual @ residual) / spread if spread > 0 else math.nan)


def early_error(entropy: ArrayLike, reward: ArrayLike, fraction: float = 0.15) -> float:
    """Predicted minus measured reward of the last point, by a fit on the first ceil(fraction * S) points (at least
    two).

    The prediction is given the last point's entropy: the law maps entropy to reward, it does not forecast entropy.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"early_error got fraction {fraction}; give a share of the run between 0 and 1")
    nats, score = np.asarray(entropy, np.float64), np.asarray(reward, np.float64)
    early = max(2, math.ceil(fraction * len(nats)))
    fit = fit_law(nats[:early], score[:early])
    return float(fit.predict(nats[-1]) - score[-1])
