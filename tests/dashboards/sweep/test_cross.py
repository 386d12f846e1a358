"""A sweep of two crossed keys: both main effects and the interaction, seed by seed, with numbers by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_study import CLIP_HIGH, FakeSpec, write_study

from dashboards.page.report import report_html
from dashboards.page.terminal import WIDTH, level_table
from dashboards.statistics.intervals import Bounds
from dashboards.sweep.cross import cross_effects, evaluate_cross, over_factor, over_other
from dashboards.sweep.factor import Factor, Grid, parse_factor
from dashboards.sweep.glossary import Metric
from dashboards.sweep.load import load_sweep

METRIC = Metric(key="policy/entropy", label="Policy entropy", unit="nats", range=Bounds(low=0.0))
SIZES, SUBSETS = ("8", "64"), ("random", "clustered")
STATED = {"key": "task.subset", "label": "Choice", "direction": "increase", "levels": ["clustered", "random", "spread"]}
DOCUMENT: dict[str, Any] = {
    "name": "data", "key": "task.num_prompts", "label": "Prompts", "ordered": True,
    "hypothesis": {"metric": "policy/entropy", "direction": "increase"}, "crossed_with": STATED,
}  # fmt: skip


def cells(sizes: Sequence[str] = SIZES, subsets: Sequence[str] = SUBSETS) -> list[dict[str, Any]]:
    return [
        {"level": f"{size}, subset {subset}", "overrides": [f"task.num_prompts={size}", f"task.subset={subset}"]}
        for size in sizes
        for subset in subsets
    ]


def factor(document: dict[str, Any] | None = None, **shape: Sequence[str]) -> Factor:
    return parse_factor(document or DOCUMENT, "data", cells(**shape))


def grid_of(found: Factor) -> Grid:
    assert found.grid is not None
    return found.grid


def finals(rows: list[list[float]], **shape: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[cell["level"] for cell in cells(**shape)])


# Columns: 8 random, 8 clustered, 64 random, 64 clustered. By seed:
#   size:        (0.5 + 0.3)/2 - (0.4 + 0.2)/2 = 0.1,  0.2,  0.3
#   subset (random - clustered, mean over sizes): 0.2,  0.2,  0.1
#   interaction (64 - 8 at random, less 64 - 8 at clustered): 0.1 - 0.1 = 0,  0.2 - 0.2 = 0,  0.2 - 0.4 = -0.2
ROWS = [[0.4, 0.2, 0.5, 0.3], [0.4, 0.2, 0.6, 0.4], [0.4, 0.2, 0.6, 0.6]]


def test_means_over_the_other_key_by_hand() -> None:
    grid = grid_of(factor())
    assert grid.values == ("8", "64") and grid.other_values == ("clustered", "random"), "in the order of the claim"
    assert np.allclose(over_other(grid, finals(ROWS)), [[0.3, 0.4], [0.3, 0.5], [0.3, 0.6]])
    assert np.allclose(over_factor(grid, finals(ROWS)), [[0.25, 0.45], [0.3, 0.5], [0.4, 0.5]])


def test_main_effects_and_interaction_by_hand() -> None:
    size, subset, interaction = cross_effects(grid_of(factor()), finals(ROWS), METRIC)
    # Differences 0.1, 0.2, 0.3: mean 0.2, sd 0.1, half-width 4.3027 * 0.1 / sqrt 3 = 0.2484; t = 2 sqrt 3, p = 0.0742.
    assert size.effect.difference.mean == pytest.approx(0.2)
    assert size.effect.difference.low == pytest.approx(0.2 - 0.24841, abs=1e-5)
    assert size.effect.p_value == pytest.approx(0.07418, abs=1e-5) and size.trend is None
    # Differences 0.2, 0.2, 0.1: mean 1/6, sd 0.1 / sqrt 3, standard error 1/30; t = 5, p = 0.0377.
    assert subset.effect.difference.mean == pytest.approx(1 / 6)
    assert subset.effect.difference.high == pytest.approx(1 / 6 + 4.30265 / 30, abs=1e-6)
    assert subset.effect.p_value == pytest.approx(0.03775, abs=1e-5)
    # Differences of differences 0, 0, -0.2: mean -1/15, standard error 1/15; t = -1, p = 0.4226.
    assert interaction.effect.difference.mean == pytest.approx(-1 / 15)
    assert interaction.effect.difference.low == pytest.approx(-1 / 15 - 4.30265 / 15, abs=1e-6)
    assert interaction.effect.p_value == pytest.approx(0.42265, abs=1e-5)
    assert size.name == "Prompts: 64 minus 8, mean over choice"
    assert subset.name == "Choice: random minus clustered, mean over prompts"
    assert interaction.name == "Interaction: 64 minus 8 at random, minus the same at clustered"


def test_without_an_interaction_the_effects_add_up_and_its_difference_is_none() -> None:
    rows = [[seed + 0.1 * i + 0.03 * j for i in range(3) for j in range(3)] for seed in (0.2, 0.5, 0.4)]
    shape: dict[str, Sequence[str]] = {"sizes": ("8", "64", "512"), "subsets": ("clustered", "random", "spread")}
    size, subset, interaction = cross_effects(grid_of(factor(**shape)), finals(rows, **shape), METRIC)
    assert size.effect.difference.mean == pytest.approx(0.2) and subset.effect.difference.mean == pytest.approx(0.06)
    assert interaction.effect.difference.mean == pytest.approx(0.0, abs=1e-12)
    # Three seeds in order along three values: Page's p = 2 / (3!)^3.
    assert size.trend is not None and size.trend.p_value == pytest.approx(2 / 216)
    assert subset.trend is not None and subset.trend.p_value == pytest.approx(2 / 216)


def test_the_verdict_is_the_factors_and_says_what_the_other_key_and_the_interaction_do() -> None:
    rows = [[0.2, 0.1, 0.4, 0.3], [0.21, 0.11, 0.42, 0.31], [0.2, 0.09, 0.4, 0.3]]
    result = evaluate_cross(factor(), finals(rows), {}, METRIC)
    assert result.outcome == "supported" and result.seeds == 3 and len(result.cross) == 3
    assert result.ends is None, "what is averaged over is no level"
    assert "averaged over choice, final policy entropy rises along prompts, 0.355 nats at 64" in result.sentence
    assert "averaged over prompts, final policy entropy rises along choice" in result.sentence
    assert "(supported)" in result.sentence and "interaction " in result.sentence
    fall = {**DOCUMENT, "hypothesis": {"metric": "policy/entropy", "direction": "decrease"}}
    assert evaluate_cross(factor(fall), finals(rows), {}, METRIC).outcome == "contradicted"


def test_a_clear_interaction_says_that_the_mean_hides_something() -> None:
    rows = [[0.2, 0.2, 0.40, 0.1], [0.2, 0.2, 0.41, 0.1], [0.2, 0.2, 0.39, 0.1]]
    sentence = evaluate_cross(factor(), finals(rows), {}, METRIC).sentence
    assert "interaction +0.300 nats" in sentence
    assert "so prompts does not do the same at clustered and random" in sentence


def test_seeds_that_lack_any_combination_do_not_count() -> None:
    holes = finals([*ROWS, [0.9, 0.9, np.nan, 0.9]])
    assert [e.effect.difference.count for e in cross_effects(grid_of(factor()), holes, METRIC)] == [3, 3, 3]
    assert over_other(grid_of(factor()), holes).shape == (3, 2)
    one = evaluate_cross(factor(), finals(ROWS[:1]), {}, METRIC)
    assert one.outcome == "too few seeds" and one.cross == () and "one seed is never evidence" in one.sentence


def test_without_a_claim_along_the_other_key_its_difference_is_told() -> None:
    plain = factor({key: value for key, value in DOCUMENT.items() if key != "crossed_with"})
    assert grid_of(plain).other_values == SUBSETS and grid_of(plain).other_hypothesis is None
    sentence = evaluate_cross(plain, finals(ROWS), {}, METRIC).sentence
    assert "task.subset: clustered minus random, mean over prompts: \u22120.167 nats" in sentence
    nothing = {key: value for key, value in DOCUMENT.items() if key not in ("crossed_with", "hypothesis")}
    described = evaluate_cross(factor(nothing), finals(ROWS), {}, METRIC)
    assert described.outcome == "no hypothesis" and len(described.cross) == 3


def test_what_is_no_grid_is_not_judged() -> None:
    for made in (cells()[:3], [*cells(), {"level": "x", "overrides": ["task.num_prompts=8", "optim.lr=1", "a=2"]}]):
        found = parse_factor(DOCUMENT, "data", made)
        assert found.grid is None and found.crossed
        result = evaluate_cross(found, finals(ROWS), {}, METRIC)
        assert result.outcome == "inconclusive" and "so its levels have no single order" in result.sentence
    alone = parse_factor(DOCUMENT, "data", cells(subsets=("random",)))
    assert alone.grid is None and alone.ordered and alone.label == "Prompts"
    assert evaluate_cross(replace(alone, crossed=()), finals(ROWS), {}, METRIC).cross == ()


def test_report_and_terminal_show_all_three(tmp_path: Path) -> None:
    document = {**CLIP_HIGH, "crossed_with": STATED}
    levels = [f"{value}, subset {subset}" for value in ("0.2", "0.4") for subset in ("clustered", "random")]
    sweep = load_sweep(write_study(tmp_path, FakeSpec(factor=document, levels=levels, steps=12)), "clip_high")
    table, page = level_table(sweep), report_html(sweep)
    assert all(len(line) <= WIDTH for line in table.splitlines())
    for name in ("Upper clip threshold: 0.4 minus 0.2", "Choice: random minus clustered", "Interaction: 0.4 minus 0.2"):
        assert name in table and name in page
    assert "95 % t interval" in table and "p, paired t" in table
    assert "Both factors and their interaction" in page
