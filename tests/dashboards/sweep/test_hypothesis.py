"""A verdict follows its rule, and never from one seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dashboards.statistics.intervals import Bounds
from dashboards.statistics.power import seeds_to_equivalence
from dashboards.sweep.factor import Factor, Hypothesis, parse_factor
from dashboards.sweep.glossary import Metric
from dashboards.sweep.hypothesis import evaluate_hypothesis

RISING = Hypothesis(metric="policy/entropy", direction=1)
FACTOR = Factor(name="clip", key="k", label="Upper clip", ordered=True, hypothesis=RISING)
METRIC = Metric(key="policy/entropy", label="Policy entropy", unit="nats", range=Bounds(low=0.0))
LABELS = {"a": "0.2", "b": "0.3", "c": "0.4"}


def table(rows: list[list[float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list("abc")[: len(rows[0])])


CLEAR = table([[0.10, 0.20, 0.30], [0.11, 0.20, 0.31], [0.12, 0.22, 0.30]])


def test_three_seeds_in_order_support_a_rise() -> None:
    # Page: all three seeds in order, p = 2/216 = 0.009; differences 0.20, 0.20, 0.18.
    hypothesis_result = evaluate_hypothesis(FACTOR, CLEAR, LABELS, METRIC)
    assert hypothesis_result.outcome == "supported"
    assert hypothesis_result.trend is not None and hypothesis_result.trend.p_value == pytest.approx(2 / 216)
    assert hypothesis_result.effect is not None and hypothesis_result.effect.difference.mean == pytest.approx(0.58 / 3)
    assert "0.303 nats at 0.4 against 0.110 at 0.2" in hypothesis_result.sentence
    assert "+0.193" in hypothesis_result.sentence and "3 seeds" in hypothesis_result.sentence


def test_the_same_data_contradict_a_fall() -> None:
    factor = replace(FACTOR, hypothesis=replace(RISING, direction=-1))
    hypothesis_result = evaluate_hypothesis(factor, CLEAR, LABELS, METRIC)
    assert hypothesis_result.outcome == "contradicted" and "rises instead of falling" in hypothesis_result.sentence


def test_one_seed_is_never_evidence() -> None:
    hypothesis_result = evaluate_hypothesis(FACTOR, CLEAR.head(1), LABELS, METRIC)
    assert hypothesis_result.outcome == "too few seeds" and "one seed" in hypothesis_result.sentence
    assert hypothesis_result.badge == "Too few seeds (1 of 3)"


def test_seeds_that_lack_a_level_do_not_count() -> None:
    holes = CLEAR.copy()
    holes.loc[1, "b"] = np.nan
    holes.loc[2, "c"] = np.nan
    assert "only one seed" in evaluate_hypothesis(FACTOR, holes, LABELS, METRIC).sentence


def test_two_seeds_of_three_levels_say_that_they_cannot_decide() -> None:
    # The best that 2 seeds x 3 levels can do is p = 2/36 = 0.056.
    hypothesis_result = evaluate_hypothesis(FACTOR, CLEAR.head(2), LABELS, METRIC)
    assert (
        hypothesis_result.badge == "Too few seeds (2 of 3)" and "could fall below 0.056" in hypothesis_result.sentence
    )


def test_two_seeds_support_nothing_however_small_the_p() -> None:
    # Two seeds in the order of four levels: p = 2/576 = 0.003; differences 0.3 and 0.1, whose interval is
    # 0.2 -+ 12.706 * 0.1414 / sqrt 2 = -1.07 to 1.47. It said "Supported" beside that.
    rising = pd.DataFrame([[0.1, 0.2, 0.3, 0.4], [0.1, 0.13, 0.16, 0.2]], columns=list("abcd"))
    hypothesis_result = evaluate_hypothesis(FACTOR, rising, LABELS, METRIC)
    assert hypothesis_result.trend is not None and hypothesis_result.trend.p_value == pytest.approx(2 / 576)
    assert hypothesis_result.outcome == "too few seeds" and "is not judged" in hypothesis_result.sentence
    assert (
        hypothesis_result.effect is not None
        and hypothesis_result.effect.difference.low < 0 < hypothesis_result.effect.difference.high
    )


def test_a_clear_trend_whose_ends_may_be_equal_is_inconclusive_and_says_so() -> None:
    # All seeds in order (p = 2/216), differences 0.30, 0.02, 0.02: 0.113 -+ 4.303 * 0.1617 / sqrt 3 holds 0.
    steep = table([[0.10, 0.20, 0.40], [0.10, 0.11, 0.12], [0.10, 0.11, 0.12]])
    hypothesis_result = evaluate_hypothesis(FACTOR, steep, LABELS, METRIC)
    assert hypothesis_result.outcome == "inconclusive" and "may still be 0" in hypothesis_result.sentence


def test_clear_ends_with_no_order_between_them_are_inconclusive_and_say_so() -> None:
    # Middle level highest: ranks 1 3 2, L = 3 (1 + 6 + 6) = 39 against 36, reached often; the ends differ by 0.10.
    bump = table([[0.10, 0.90, 0.20], [0.11, 0.91, 0.21], [0.12, 0.92, 0.221]])
    hypothesis_result = evaluate_hypothesis(FACTOR, bump, LABELS, METRIC)
    assert hypothesis_result.outcome == "inconclusive" and "do not follow" in hypothesis_result.sentence


def test_two_levels_are_judged_by_the_paired_t_test() -> None:
    # Differences 0.10, 0.09, 0.10: t = 0.09667 / (0.005774 / sqrt 3) = 29, p = 0.0012.
    hypothesis_result = evaluate_hypothesis(FACTOR, CLEAR[["a", "b"]], LABELS, METRIC)
    assert hypothesis_result.outcome == "supported" and hypothesis_result.trend is None
    assert "paired t test p = 0.001" in hypothesis_result.sentence


def test_equal_levels_are_called_inert() -> None:
    hypothesis_result = evaluate_hypothesis(FACTOR, table([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]), LABELS, METRIC)
    assert hypothesis_result.outcome == "inconclusive" and "upper clip was inert" in hypothesis_result.sentence


def test_noise_is_inconclusive() -> None:
    noise = table([[0.1, 0.3, 0.2], [0.3, 0.1, 0.2], [0.2, 0.3, 0.1]])
    assert evaluate_hypothesis(FACTOR, noise, LABELS, METRIC).outcome == "inconclusive"


def test_an_open_question_names_what_the_seeds_could_have_shown_and_how_many_would_decide() -> None:
    # Differences -1, 0 and 4: mean 1, standard deviation 2.646. Three pairs find d_z = 3.264 with 80 %; d_z = 0.378
    # takes 57 pairs.
    finals = table([[5.0, 4.0], [5.0, 5.0], [5.0, 9.0]])
    found = evaluate_hypothesis(FACTOR, finals, LABELS, METRIC)
    assert found.outcome == "inconclusive" and found.ends == ("a", "b")
    assert "3 seeds could have shown is 8.636 nats (80% power" in found.resolution
    assert "to show the observed +1.000 nats, it takes 57 seeds." in found.sentence
    two = evaluate_hypothesis(FACTOR, finals.iloc[1:], LABELS, METRIC)
    assert two.outcome == "too few seeds" and "2 seeds could have shown" in two.resolution
    assert evaluate_hypothesis(FACTOR, CLEAR, LABELS, METRIC).resolution == "", "what is decided is not open"


def test_a_claim_that_nothing_moves_names_the_seeds_that_place_it_within_its_margin() -> None:
    factor = replace(FACTOR, hypothesis=Hypothesis(metric="policy/entropy", direction=0, margin=0.02))
    finals = table([[0.50, 0.51], [0.50, 0.49], [0.50, 0.50]])
    found = evaluate_hypothesis(factor, finals, LABELS, METRIC)
    # The differences 0.01, -0.01 and 0 have mean 0 and standard deviation 0.01: margin 2 standard deviations.
    assert found.outcome == "inconclusive"
    assert f"within the margin of 0.020 nats, it takes {seeds_to_equivalence(0.0, 1.0, 2.0)} seeds." in found.resolution
    moved = evaluate_hypothesis(factor, table([[0.5, 0.51], [0.5, 0.59], [0.5, 0.50]]), LABELS, METRIC)
    assert "to show the observed +0.033 nats" in moved.resolution, "outside the margin no seeds place it within"


def test_clear_pairs_without_an_order_do_not_ask_for_seeds_that_are_there() -> None:
    found = evaluate_hypothesis(FACTOR, CLEAR.head(2), LABELS, METRIC)
    assert found.outcome == "too few seeds" and found.resolution == ""


def test_unordered_levels_need_to_be_named() -> None:
    loose = replace(FACTOR, ordered=False)
    assert "no order" in evaluate_hypothesis(loose, CLEAR, LABELS, METRIC).sentence
    named = replace(loose, hypothesis=replace(RISING, levels=("c", "a"), direction=-1))
    hypothesis_result = evaluate_hypothesis(named, CLEAR, LABELS, METRIC)
    assert hypothesis_result.outcome == "supported" and "at 0.2 against 0.303 at 0.4" in hypothesis_result.sentence


def test_levels_may_be_named_by_their_labels() -> None:
    factor = replace(FACTOR, hypothesis=replace(RISING, levels=("0.2", "0.3", "0.4")))
    assert evaluate_hypothesis(factor, CLEAR, LABELS, METRIC).outcome == "supported"


def test_a_crossed_sweep_is_not_judged() -> None:
    hypothesis_result = evaluate_hypothesis(replace(FACTOR, crossed=("task.subset",)), CLEAR, LABELS, METRIC)
    assert hypothesis_result.outcome == "inconclusive" and "also varies task.subset" in hypothesis_result.sentence


def test_a_claim_that_nothing_moves() -> None:
    # Differences c - a: +0.001, -0.001, 0: mean 0, sd 0.001, half-width 4.3027 * 0.001 / sqrt 3 = 0.00248.
    still = table([[0.1, 0.1015, 0.101], [0.2, 0.1985, 0.199], [0.3, 0.3, 0.3]])
    none = replace(RISING, direction=0)
    assert evaluate_hypothesis(replace(FACTOR, hypothesis=none), CLEAR, LABELS, METRIC).outcome == "contradicted"
    assert evaluate_hypothesis(replace(FACTOR, hypothesis=none), still, LABELS, METRIC).outcome == "inconclusive"
    assert (
        evaluate_hypothesis(replace(FACTOR, hypothesis=replace(none, margin=0.0025)), still, LABELS, METRIC).outcome
        == "supported"
    )
    assert (
        evaluate_hypothesis(replace(FACTOR, hypothesis=replace(none, margin=0.0024)), still, LABELS, METRIC).outcome
        == "inconclusive"
    )


def test_what_else_a_sweep_varies_is_read_from_its_overrides() -> None:
    cells = [
        {"overrides": ["k=1", "seed=0", "task.subset=random"]},
        {"overrides": ["k=2", "seed=1", "task.subset=clustered"]},
    ]
    factor = parse_factor({"name": "f", "key": "k", "label": "F", "ordered": True, "held": {"x": 1}}, "f", cells)
    assert factor.crossed == ("task.subset",) and not factor.ordered and factor.label == "F, task.subset"
    assert factor.held == {"x": "1"}


@pytest.mark.parametrize(
    ("hypothesis", "words"),
    [
        (replace(RISING, direction=None), "no direction"),
        (replace(RISING, levels=("a", "z")), "a → z, of which this study does not have z"),
        (None, "no hypothesis"),
    ],
)
def test_what_cannot_be_judged_says_why(hypothesis: Hypothesis | None, words: str) -> None:
    hypothesis_result = evaluate_hypothesis(replace(FACTOR, hypothesis=hypothesis), CLEAR, LABELS, METRIC)
    assert (
        hypothesis_result.outcome in ("inconclusive", "no hypothesis") and words in hypothesis_result.sentence.lower()
    )


def test_a_metric_nobody_logged_is_named() -> None:
    empty = pd.DataFrame({"a": [np.nan], "b": [np.nan]})
    assert "policy/entropy" in evaluate_hypothesis(FACTOR, empty, LABELS, METRIC).sentence


@pytest.mark.parametrize(
    ("word", "direction"), [("increase", 1), ("Decreasing", -1), ("down", -1), ("none", 0), ("sideways", None)]
)
def test_direction_words(word: str, direction: int) -> None:
    factor = parse_factor({"name": "f", "hypothesis": {"metric": "m", "direction": word}}, "f")
    assert factor.hypothesis is not None and factor.hypothesis.direction == direction


def test_a_sweep_without_factor_is_unordered_and_claims_nothing() -> None:
    factor = parse_factor(None, "study")
    assert not factor.ordered and factor.hypothesis is None
