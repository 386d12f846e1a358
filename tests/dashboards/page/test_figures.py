"""Figures: one look per level everywhere, labelled axes with units, level order, bands and hover values."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from dashboards.page.figures import band_note, curve, seed_curve, thinned
from dashboards.page.figures_compare import final_by_level, forest, pass_at_k, pool_bins, reliability, reward_entropy
from dashboards.page.figures_ledger import COLORS, quadrant_curves
from dashboards.page.legend import legend_mark
from dashboards.page.page import _TEMPLATES as TEMPLATES
from dashboards.page.palette import _OKABE_ITO, _VIRIDIS, DARK, level_styles
from dashboards.page.sections_behaviour import curve_or_final
from dashboards.search.figures import MARKS
from dashboards.sweep.artifacts import load_reliability
from dashboards.sweep.ledger import accounts
from dashboards.sweep.load import SweepData
from dashboards.sweep.summary import level_laws, paired_effects


def luminance(color: str) -> float:
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_ordered_levels_grow_lighter_and_differ_in_dash_and_marker(sweep: SweepData) -> None:
    styles = level_styles(sweep)
    shades = [luminance(style.color) for style in styles]
    assert shades == sorted(shades) and len(set(shades)) == 4
    assert len({style.dash for style in styles}) == 4 and len({style.symbol for style in styles}) == 4


def test_curve_has_a_line_a_level_in_order_with_a_band(sweep: SweepData) -> None:
    figure = curve(sweep, "policy/entropy", level_styles(sweep))
    assert figure is not None
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [trace.name for trace in lines] == ["0.2", "0.28", "0.4", "0.5"]
    assert sum(trace.fill == "toself" for trace in figure.data) == 4
    assert figure.layout.yaxis.title.text == "nats" and figure.layout.xaxis.title.text == "training step"
    assert figure.layout.legend.title.text == "Upper clip threshold"
    assert lines[0].customdata[0][2] == 3 and "seeds: " in lines[0].hovertemplate


def test_seed_curve_below_five_seeds_is_mean_and_range() -> None:
    points = pd.DataFrame({"step": [0, 0, 0, 1], "value": [1.0, 2.0, 6.0, 4.0]})
    frame = seed_curve(points)
    assert frame.to_dict("records") == [
        {"step": 0, "mean": 3.0, "low": 1.0, "high": 6.0, "n": 3},
        {"step": 1, "mean": 4.0, "low": 4.0, "high": 4.0, "n": 1},
    ]


def test_seed_curve_from_five_seeds_is_the_t_interval() -> None:
    # 1..5: mean 3, sd sqrt(2.5), standard error sqrt(0.5) = 0.70711, t_{0.975,4} = 2.7764: half-width 1.9632.
    frame = seed_curve(pd.DataFrame({"step": [0] * 5, "value": [1.0, 2.0, 3.0, 4.0, 5.0]}))
    assert frame["high"].item() == pytest.approx(4.9632, abs=5e-4)


def test_a_metric_nobody_logged_has_no_figure(sweep: SweepData) -> None:
    styles = level_styles(sweep)
    assert curve(sweep, "policy/absent", styles) is None and final_by_level(sweep, "policy/absent", styles) is None


def test_a_metric_logged_once_is_drawn_by_level_and_not_as_a_curve(sweep: SweepData) -> None:
    styles = level_styles(sweep)
    assert curve(sweep, "support/heldout_srr", styles) is None
    figure = curve_or_final(sweep, "support/heldout_srr", styles)
    assert figure is not None and figure.layout.xaxis.type == "category"
    assert curve_or_final(sweep, "support/heldout_srr", styles[:1]) is None, "one level, one point: nothing to see"


def test_a_long_curve_is_thinned_and_keeps_its_spikes() -> None:
    mean = np.zeros(5000)
    mean[[1234, 4321]] = [9.0, -9.0]
    frame = pd.DataFrame({"step": np.arange(5000), "mean": mean, "low": mean, "high": mean, "n": 1})
    kept = thinned(frame)
    assert len(kept) <= 200 and kept["step"].is_monotonic_increasing
    assert kept["step"].iloc[[0, -1]].tolist() == [0, 4999] and {1234, 4321} <= set(kept["step"])
    assert thinned(frame.head(200)) is not kept and len(thinned(frame.head(200))) == 200


def test_every_quadrant_has_a_figure_with_a_line_a_level(sweep: SweepData) -> None:
    figures = quadrant_curves(sweep, accounts(sweep), level_styles(sweep))
    assert [figure.layout.title.text for figure in figures] == [
        "Positive, likely tokens", "Positive, unlikely tokens", "Negative, likely tokens", "Negative, unlikely tokens",
    ]  # fmt: skip
    # Levels differ in the last only: by 0.0065 nats each at the end of the 20 steps (fake_study.FakeSpec.effect).
    ends = [[trace.y[-1] for trace in figure.data if trace.mode == "lines+markers"] for figure in figures]
    assert np.diff(ends[3]) == pytest.approx([0.0065] * 3, abs=5e-4) and np.ptp(ends[0]) < 1e-3


def test_colours_of_a_level_agree_over_all_figures(sweep: SweepData) -> None:
    styles = level_styles(sweep)
    expected = {style.level: style.color for style in styles}
    figures = [
        curve(sweep, "policy/entropy", styles), final_by_level(sweep, "policy/entropy", styles),
        forest(sweep, "policy/entropy", paired_effects(sweep), styles), pass_at_k(sweep, "heldout", styles),
        reliability(sweep, load_reliability(sweep), "ood", styles),
    ]  # fmt: skip
    for figure in figures:
        assert figure is not None
        for trace in figure.data:
            if trace.legendgroup and trace.marker.color:
                assert trace.marker.color == expected[trace.legendgroup]


def test_final_by_level_keeps_level_order_and_shows_every_seed(sweep: SweepData) -> None:
    figure = final_by_level(sweep, "policy/entropy", level_styles(sweep))
    assert figure is not None
    assert list(figure.layout.xaxis.categoryarray) == ["0.2", "0.28", "0.4", "0.5"]
    seeds = [trace for trace in figure.data if trace.marker.symbol and str(trace.marker.symbol).endswith("-open")]
    assert sum(len(trace.x) for trace in seeds) == 12


def test_forest_leaves_the_reference_out(sweep: SweepData) -> None:
    figure = forest(sweep, "policy/entropy", paired_effects(sweep), level_styles(sweep))
    assert figure is not None and [trace.name for trace in figure.data] == ["0.28", "0.4", "0.5"]


def test_pass_at_k_is_drawn_against_k(sweep: SweepData) -> None:
    figure = pass_at_k(sweep, "heldout", level_styles(sweep))
    assert figure is not None and list(figure.data[0].x) == [1, 2, 4, 8, 16] and figure.layout.xaxis.type == "log"


def test_reliability_pools_seeds_by_count() -> None:
    # 10 responses at 0.2 and 30 at 0.6 right: (2 + 18) / 40 = 0.5.
    # Both lie between 0.3 and 0.4; confidence (10 * 0.31 + 30 * 0.39) / 40 = 0.37. The third is a bin of its own.
    rows = pd.DataFrame({"confidence": [0.31, 0.39, 1.0], "accuracy": [0.2, 0.6, 1.0], "count": [10.0, 30.0, 5.0]})
    pooled = pool_bins(rows)
    assert pooled["bin"].tolist() == [3, 9]
    assert pooled["accuracy"].tolist() == [pytest.approx(0.5), 1.0]
    assert pooled["confidence"].tolist() == [pytest.approx(0.37), 1.0]


def test_reward_entropy_draws_the_fitted_law(sweep: SweepData) -> None:
    laws = level_laws(sweep)
    figure = reward_entropy(sweep, laws, level_styles(sweep))
    assert figure is not None and sum(trace.mode == "lines" for trace in figure.data) == 4
    # The synthetic runs follow R = 1.93 - 1.30 e^H with noise 0.018.
    law = laws[0]
    assert law.a.mean == pytest.approx(1.30, abs=0.15) and 0 < law.r_squared.low < law.r_squared.high < 1
    assert law.ceiling.mean == pytest.approx(law.b.mean - law.a.mean) and law.ceiling.count == 3
    # 20 steps are fewer than the 36 of the paper's beginning, and their first 15 % are three.
    assert law.error_early.low >= 0 and law.error_early.count == 3 and law.error_36.count == 0


def test_band_note_says_what_a_band_is(sweep: SweepData) -> None:
    assert "lowest to the highest of the 3 seeds" in band_note(sweep)


def test_every_style_has_a_legend_mark(sweep: SweepData) -> None:
    for style in level_styles(sweep):
        assert style.color in legend_mark(style)


def test_on_a_dark_page_levels_keep_their_order_and_are_legible(sweep: SweepData) -> None:
    styles = level_styles(sweep)
    shades = [luminance(DARK[style.color]) for style in styles]
    assert shades == sorted(shades) and len(set(shades)) == 4
    page = (TEMPLATES / "page.css").read_text().partition("prefers-color-scheme: dark")[2]
    ground = re.search(r"--paper: (#[0-9a-f]{6})", page)
    assert ground is not None
    drawn = {
        DARK.get(color, color)
        for color in [*_VIRIDIS, *_OKABE_ITO, *COLORS.values(), *(m.color for m in MARKS.values())]
    }
    weak = {color for color in drawn if contrast(color, ground[1]) < 3}
    assert weak == {DARK[COLORS["unsampled"]]}, "a grey without meaning of its own may recede"


def contrast(color: str, ground: str) -> float:
    """Contrast by WCAG 2.1; 3 is what it asks of graphics."""

    def linear(color: str) -> float:
        parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((linear(color), linear(ground)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
