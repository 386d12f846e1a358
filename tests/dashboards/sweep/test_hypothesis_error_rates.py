"""How often each form of verdict is wrong, by simulation: a false claim in at most one study of twenty."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from dashboards.search.conclusion import conclude
from dashboards.search.confirm import Confirmation, TunedComparison
from dashboards.search.load import OptimizedMetric, SearchData
from dashboards.statistics.intervals import paired_effect, t_interval
from dashboards.sweep.factor import Factor, Hypothesis
from dashboards.sweep.glossary import Metric
from dashboards.sweep.hypothesis import evaluate_hypothesis

STUDIES = 200
METRIC = Metric(key="policy/entropy", label="Policy entropy", unit="nats")


def outcomes(seeds: int, levels: int, hypothesis: Hypothesis, shift: float = 0.0) -> dict[str, float]:
    """Share of each outcome over studies whose levels differ by noise, and the last from the first by ``shift``.

    A seed's levels share an offset that is larger than the noise; the noise has unit variance.
    """
    generator, names = np.random.default_rng([seeds, levels, round(10 * shift)]), list("abcdef")[:levels]
    factor = Factor(name="f", key="k", label="Factor", ordered=True, hypothesis=hypothesis)
    found = []
    for _ in range(STUDIES):
        table = 5 * generator.normal(size=(seeds, 1)) + generator.normal(size=(seeds, levels))
        table[:, -1] += shift
        found.append(evaluate_hypothesis(factor, pd.DataFrame(table, columns=names), {}, METRIC).outcome)
    return {outcome: found.count(outcome) / STUDIES for outcome in set(found)}


def bound(rate: float) -> float:
    """``rate`` and three binomial standard errors."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / STUDIES)


@pytest.mark.parametrize(("seeds", "levels"), [(3, 2), (5, 2), (3, 3), (5, 4)])
def test_a_direction_is_rarely_claimed_of_noise(seeds: int, levels: int) -> None:
    rates = outcomes(seeds, levels, Hypothesis(metric="m", direction=1))
    # Two-sided 5 %: half of the false movements go the claimed way.
    assert rates.get("supported", 0.0) <= bound(0.025) and rates.get("contradicted", 0.0) <= bound(0.025)


@pytest.mark.parametrize("seeds", [1, 2])
def test_nothing_is_claimed_below_three_seeds(seeds: int) -> None:
    assert outcomes(seeds, 4, Hypothesis(metric="m", direction=1), shift=20.0) == {"too few seeds": 1.0}


@pytest.mark.parametrize("levels", [2, 3])
def test_a_claim_that_nothing_moves_is_rarely_contradicted_by_noise(levels: int) -> None:
    assert outcomes(3, levels, Hypothesis(metric="m", direction=0)).get("contradicted", 0.0) <= bound(0.05)


def test_a_claim_that_nothing_moves_is_rarely_supported_of_a_difference_at_its_margin() -> None:
    rates = outcomes(5, 2, Hypothesis(metric="m", direction=0, margin=6.0), shift=6.0)
    assert rates.get("supported", 0.0) <= bound(0.025)


def test_a_real_movement_is_found() -> None:
    assert outcomes(5, 3, Hypothesis(metric="m", direction=1), shift=8.0)["supported"] > 0.5


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 3), (1, 5), (4, 3)])
def test_a_tuned_configuration_like_the_untuned_one_is_rarely_called_better(comparisons: int, seeds: int) -> None:
    generator, badges = np.random.default_rng([comparisons, seeds]), []
    search = cast("SearchData", SimpleNamespace(complete=(None,), single=comparisons == 1))
    objective = OptimizedMetric(metric="eval/heldout/avg_at_16", maximize=True, label="avg@16")
    for _ in range(STUDIES):
        items = []
        for level in range(comparisons):
            tuned, untuned = generator.normal(size=(2, seeds))
            items.append(
                TunedComparison(
                    level=f"tuned-{level}",
                    trial=level,
                    objective=objective,
                    unseen=False,
                    tuned=t_interval(tuned),
                    untuned=t_interval(untuned),
                    effect=paired_effect(tuned, untuned),
                    reported=math.nan,
                    selection_bias=t_interval(tuned),
                )
            )
        found = Confirmation(comparisons=tuple(items), seeds=(), completed=0, planned=0, missing="")
        badges.append(conclude(search, found).badge)
    assert badges.count("Tuned is better") / STUDIES <= bound(0.025)
    assert badges.count("Tuned is worse") / STUDIES <= bound(0.025)
