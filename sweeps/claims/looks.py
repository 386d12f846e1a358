"""Group-sequential tests (``until=decided``): seeds are added in planned looks, each with a significance level of its
own, so that the error rate over all looks holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

ALPHA = 0.05


def spent(fraction: float, alpha: float = ALPHA) -> float:
    """Error probability spent when ``fraction`` of the last look's seeds are in: alpha ln(1 + (e - 1) fraction).

    The spending function of Lan and DeMets 1983 that imitates Pocock's boundaries.
    """
    return alpha * math.log(1 + (math.e - 1) * fraction)


def look_levels(looks: Sequence[int], alpha: float = ALPHA) -> list[float]:
    """The level at which each look tests: what it adds to the error probability spent before.

    They add up to ``alpha``, so the chance that any look rejects a true null is at most ``alpha`` (Bonferroni),
    whatever the dependence between looks; exact boundaries would be a little wider.
    """
    marks = [spent(seeds / looks[-1], alpha) for seeds in looks]
    return [mark - before for mark, before in zip(marks, [0.0, *marks], strict=False)]
