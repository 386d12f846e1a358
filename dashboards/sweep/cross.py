"""The verdict of a sweep that crosses its factor with one other key: two main effects and their interaction.

With y_s(i, j) the final value of seed s at value i of 1 to A of the factor, and j of 1 to B of the other key:

    factor       mean_j y_s(A, j) - mean_j y_s(1, j)
    other key    mean_i y_s(i, B) - mean_i y_s(i, 1)
    interaction  (y_s(A, B) - y_s(1, B)) - (y_s(A, 1) - y_s(1, 1))

Each is one number a seed, so each has a paired t interval and p over seeds. Only seeds with every combination count:
otherwise a mean over the other key would compare different seeds at different values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from dashboards.statistics.format import interval_text, p_text, signed
from dashboards.statistics.intervals import CONFIDENCE, paired_effect
from dashboards.statistics.trend import page_trend
from dashboards.sweep.factor import Factor, Grid
from dashboards.sweep.glossary import Metric
from dashboards.sweep.hypothesis import CrossEffect, HypothesisResult, evaluate_hypothesis, lowered, unit_text


def evaluate_cross(factor: Factor, finals: pd.DataFrame, labels: Mapping[str, str], metric: Metric) -> HypothesisResult:
    """Test the factor's hypothesis on the means over the other key of ``finals`` [seed, level] (NaN where a cell is not
    completed); what is claimed along the other key, and the interaction, are in the reason.

    The outcome is that of the factor alone. Without a grid it is what :func:`evaluate_hypothesis` says.
    """
    grid = factor.grid
    if grid is None:
        return evaluate_hypothesis(factor, finals, labels, metric)
    means, others = over_other(grid, finals), over_factor(grid, finals)
    alone = replace(factor, label=grid.label, ordered=grid.ordered, crossed=(), grid=None)
    result = evaluate_hypothesis(alone, means, {}, metric)
    effects = cross_effects(grid, finals, metric)
    if not effects:
        return replace(result, ends=None)
    reason = f"averaged over {lowered(grid.other_label)}, {result.reason}"
    reason += f"; {_other(factor, grid, others, effects[1], metric)}; {_interaction(grid, effects[2], metric)}"
    return replace(result, reason=reason, ends=None, cross=effects)


def over_other(grid: Grid, finals: pd.DataFrame) -> pd.DataFrame:
    """[seed, value] means over the other key, of seeds with every combination."""
    complete = _whole(grid, finals)
    return _means(
        complete, {value: [grid.levels[value, other] for other in grid.other_values] for value in grid.values}
    )


def over_factor(grid: Grid, finals: pd.DataFrame) -> pd.DataFrame:
    """[seed, other value] means over the factor, of seeds with every combination."""
    complete = _whole(grid, finals)
    return _means(
        complete, {other: [grid.levels[value, other] for value in grid.values] for other in grid.other_values}
    )


def cross_effects(grid: Grid, finals: pd.DataFrame, metric: Metric) -> tuple[CrossEffect, ...]:
    """Factor, other key, interaction (see the module); empty below two seeds with every combination."""
    complete, means, others = _whole(grid, finals), over_other(grid, finals), over_factor(grid, finals)
    if len(complete) < 2:
        return ()
    (low, *_, high), (first, *_, last) = grid.values, grid.other_values
    at_last, at_first = (
        complete[grid.levels[high, other]] - complete[grid.levels[low, other]] for other in (last, first)
    )
    return (
        CrossEffect(
            name=f"{grid.label}: {high} minus {low}, mean over {lowered(grid.other_label)}",
            effect=paired_effect(means[high], means[low], metric.range),
            trend=page_trend(means) if len(grid.values) > 2 else None,
        ),
        CrossEffect(
            name=f"{grid.other_label}: {last} minus {first}, mean over {lowered(grid.label)}",
            effect=paired_effect(others[last], others[first], metric.range),
            trend=page_trend(others) if len(grid.other_values) > 2 else None,
        ),
        CrossEffect(
            name=f"Interaction: {high} minus {low} at {last}, minus the same at {first}",
            effect=paired_effect(at_last, at_first, metric.range.of_differences),
        ),
    )


def _whole(grid: Grid, finals: pd.DataFrame) -> pd.DataFrame:
    return finals.reindex(columns=list(grid.levels.values())).dropna()


def _means(complete: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: complete[list(levels)].mean(axis=1) for name, levels in groups.items()}, index=complete.index
    )


def _other(factor: Factor, grid: Grid, others: pd.DataFrame, effect: CrossEffect, metric: Metric) -> str:
    """What the other key does: the test of what is claimed along it, or the difference of its ends."""
    if grid.other_hypothesis is None:
        return f"{effect.name[:1].lower()}{effect.name[1:]}: {_estimate(effect, metric)}"
    alone = Factor(
        name=factor.name, key=grid.other_key, label=grid.other_label, ordered=True, hypothesis=grid.other_hypothesis
    )
    claimed = evaluate_hypothesis(alone, others, {}, metric)
    return f"averaged over {lowered(grid.label)}, {claimed.reason} ({claimed.outcome})"


def _interaction(grid: Grid, crossed: CrossEffect, metric: Metric) -> str:
    difference = crossed.effect.difference
    clear = difference.low > 0 or difference.high < 0
    text = f"interaction {_estimate(crossed, metric)}"
    if clear:
        text += f", so {lowered(grid.label)} does not do the same at {grid.other_values[0]} and {grid.other_values[-1]}"
    return text


def _estimate(crossed: CrossEffect, metric: Metric) -> str:
    difference, ends = crossed.effect.difference, interval_text(crossed.effect.difference, sign=True)
    return (
        f"{signed(difference.mean)}{unit_text(metric)} ({CONFIDENCE:.0%} interval {ends}, {difference.count} seeds; "
        f"paired t test {p_text(crossed.effect.p_value)})"
    )
