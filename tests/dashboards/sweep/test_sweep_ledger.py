"""The account of entropy: cumulated by hand, parts that add up, causes of a difference, fit, ranking, correlation."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from dashboards.sweep.ledger import MIN_LEDGERS, accounts, causes, ledger_points, prediction, ranking
from dashboards.sweep.load import SweepData
from dashboards.sweep.moved import compared_ends, moved_metrics, within_seed_correlation
from dashboards.sweep.summary import final_table

Runs = dict[tuple[str, int], dict[str, dict[int, float]]]


def sweep_of(runs: Runs) -> SweepData:
    """Completed runs by (level, seed), each with points by metric and step."""
    cells = pd.DataFrame(
        [
            {"signature": f"{level}-{seed}", "level": level, "label": level, "level_index": "ab".index(level),
             "seed": seed, "state": "COMPLETED"}
            for level, seed in runs
        ]
    )  # fmt: skip
    rows = [
        {"signature": f"{level}-{seed}", "level": level, "label": level, "level_index": "ab".index(level),
         "seed": seed, "step": step, "metric": metric, "value": value}
        for (level, seed), metrics in runs.items()
        for metric, points in metrics.items()
        for step, value in points.items()
    ]  # fmt: skip
    return cast(SweepData, SimpleNamespace(cells=cells, completed=cells, metrics=pd.DataFrame(rows)))


def run(scale: float = 1.0, unlikely: float = 0.0) -> dict[str, dict[int, float]]:
    """Ledgers at steps 0, 2 and 4 of six steps; the entropy falls by 0.02 a step."""
    constant = {"positive_likely": -0.01, "positive_unlikely": 0.004, "negative_likely": 0.003,
                "negative_unlikely": -0.002 + unlikely, "policy": -0.006 + unlikely, "residual": 0.001}  # fmt: skip
    ledger = {f"ledger/{name}": dict.fromkeys((0, 2, 4), scale * value) for name, value in constant.items()}
    ledger["ledger/momentum"] = {0: 0.0, 2: -0.02, 4: -0.01}
    ledger["ledger/measured"] = {
        step: ledger["ledger/policy"][step] + ledger["ledger/momentum"][step] + ledger["ledger/residual"][step]
        for step in (0, 2, 4)
    }
    return ledger | {"policy/entropy": {step: 0.5 - 0.02 * step for step in range(6)}}


def test_an_account_by_hand() -> None:
    (account,) = accounts(sweep_of({("a", 0): run()}))
    # Rates of momentum: 0, -0.01, -0.02, -0.015, -0.01 (linear between 0, 2 and 4); what precedes each step adds up.
    assert account.parts["momentum"].tolist() == pytest.approx([0, 0, -0.01, -0.03, -0.045, -0.055])
    assert account.parts["positive_likely"].tolist() == pytest.approx([-0.01 * step for step in range(6)])
    assert account.parts["unsampled"].tolist() == pytest.approx([-0.001 * step for step in range(6)])
    # Policy -0.03, momentum -0.055 and residual 0.005 in five updates; the entropy fell by 0.1.
    assert account.parts["elsewhere"].iloc[-1] == pytest.approx(-0.1 - (-0.03 - 0.055 + 0.005))
    assert account.ledgers == 3 and account.change.iloc[-1] == pytest.approx(-0.1)


def test_the_parts_add_up_to_the_change_of_entropy_at_every_step() -> None:
    found = accounts(sweep_of({("a", 0): run(1.7), ("b", 1): run(0.3, unlikely=0.01)}))
    for account in found:
        assert account.parts.sum(axis=1).to_numpy() == pytest.approx(account.change.to_numpy(), abs=1e-12)
    assert len(found) == 2


def test_a_run_with_few_ledgers_has_no_account() -> None:
    few = {
        key: {step: value for step, value in points.items() if key[0] == "p" or step < 4}
        for key, points in run().items()
    }
    assert len(few["ledger/measured"]) == MIN_LEDGERS - 1
    assert accounts(sweep_of({("a", 0): few})) == []


def test_causes_are_paired_differences_that_add_up() -> None:
    runs: Runs = {("a", seed): run() for seed in (0, 1, 2)} | {("a", 7): run()}
    runs |= {("b", seed): run(unlikely=0.01 + 0.001 * (seed - 1)) for seed in (0, 1, 2)}
    found = causes(accounts(sweep_of(runs)), "b", "a")
    assert {cause.part for cause in found} == {"negative_unlikely", "elsewhere"}, "what is equal is left out"
    part = next(cause for cause in found if cause.part == "negative_unlikely")
    # The mean over the last five steps of 0.01 t, t = 1 to 5, is 0.03; seeds at 0.9, 1 and 1.1 of it; t = 4.303.
    assert part.difference.mean == pytest.approx(0.03)
    assert part.difference.high - 0.03 == pytest.approx(4.303 * 0.003 / math.sqrt(3), rel=1e-3)
    assert part.difference.count == 3 and part.clear
    assert sum(cause.difference.mean for cause in found) == pytest.approx(0, abs=1e-12), "entropies are equal here"


def test_the_prediction_of_changes_by_hand() -> None:
    predicted = {"ledger/predicted": {0: 0.0, 2: 1.0, 4: 2.0}}
    measured = [{0: 0.0, 2: 1.0, 4: 4.0}, {0: 0.0, 2: 3.0, 4: 4.0}]
    sweep = sweep_of({("a", seed): predicted | {"ledger/measured": values} for seed, values in enumerate(measured)})
    fit = prediction(ledger_points(sweep))
    assert fit is not None and fit.points == 6 and fit.slope.count == 2
    assert fit.slope.mean == pytest.approx(2.0) and fit.slope.low == pytest.approx(2.0)
    # Sxx = 4, Sxy = 8, Syy = 18.
    assert fit.correlation.mean == pytest.approx(8 / math.sqrt(4 * 18))
    assert prediction(ledger_points(sweep_of({("a", 0): {"policy/entropy": {0: 1.0}}}))) is None


def test_estimators_are_ranked_by_their_mean_over_runs() -> None:
    def logged(exact: float, covariance: float) -> dict[str, dict[int, float]]:
        return {"ledger/corr_exact": {0: exact - 0.1, 2: exact + 0.1}, "ledger/corr_covariance": {0: covariance}}

    sweep = sweep_of({("a", 0): logged(0.5, 0.2), ("a", 1): logged(0.7, 0.3), ("a", 2): logged(0.6, 0.9)})
    best, second = ranking(ledger_points(sweep))
    assert (best.name, second.name) == ("exact", "covariance")
    assert (best.correlation.mean, second.correlation.mean) == pytest.approx((0.6, 1.4 / 3))
    # Of the runs' differences 0.3, 0.4 and -0.3, three drawn sum to 0 or less only as the third thrice (1 of 27), or
    # twice with the first (3) or the second (3).
    assert best.ahead == pytest.approx(1 - (1 + 3 + 3) / 27, abs=0.03) and math.isnan(second.ahead)


def test_a_run_without_an_estimator_is_left_out_of_its_rank() -> None:
    sweep = sweep_of(
        {
            ("a", 0): {"ledger/corr_exact": {0: 0.5}, "ledger/corr_covariance": {0: 0.2}},
            ("a", 1): {"ledger/corr_exact": {0: 0.7}},
        }
    )
    best, second = ranking(ledger_points(sweep))
    assert (best.correlation.mean, second.correlation.mean) == pytest.approx((0.6, 0.2))
    assert best.ahead == 1.0, "of the resamples that have both"


def test_correlation_within_seeds_by_hand() -> None:
    entropy = pd.DataFrame({"a": [1.0, 11.0, 5.0], "b": [2.0, 12.0, np.nan], "c": [3.0, 13.0, 6.0]})
    other = pd.DataFrame({"a": [0.0, -50.0, 1.0], "b": [1.0, -49.0, 1.0], "c": [2.0, -48.0, 2.0]})
    found = within_seed_correlation(entropy, other)
    assert found.mean == pytest.approx(1.0) and found.count == 8, "offsets of seeds do not count"
    other.loc[0, "c"] = 0.0
    # Deviations of x: -1 0 1, -1 0 1, -1/2 1/2; of y: -1/3 2/3 -1/3, -1 0 1, -1/2 1/2.
    r = (0 + 2 + 0.5) / math.sqrt(4.5 * (2 / 3 + 2 + 0.5))
    found = within_seed_correlation(entropy, other)
    assert found.mean == pytest.approx(r)
    assert found.high == pytest.approx(math.tanh(math.atanh(r) + 1.96 / math.sqrt(8 - 3 - 2)), abs=1e-4)
    flat = within_seed_correlation(entropy, other * 0)
    assert math.isnan(flat.mean)
    alone = within_seed_correlation(entropy[["a"]], other[["a"]])
    assert math.isnan(alone.mean) and alone.count == 0, "one configuration: no seed has two runs"


def test_the_parts_of_a_study_explain_the_difference_of_its_levels(sweep: SweepData) -> None:
    found = causes(accounts(sweep), "0.5", "0.2")
    entropy = final_table(sweep, "policy/entropy")
    start = sweep.metrics[(sweep.metrics["metric"] == "policy/entropy") & (sweep.metrics["step"] == 0)]
    first = start.pivot_table(index="seed", columns="level", values="value")
    expected = (entropy["0.5"] - entropy["0.2"] - first["0.5"] + first["0.2"]).mean()
    assert sum(cause.difference.mean for cause in found) == pytest.approx(expected, abs=1e-12)
    assert next(cause for cause in found if cause.part == "negative_unlikely").clear


def test_what_is_compared_is_never_chosen_by_the_result() -> None:
    def study(levels: list[str], ordered: bool) -> Any:
        return SimpleNamespace(levels=pd.DataFrame({"level": levels}), factor=SimpleNamespace(ordered=ordered))

    assert compared_ends(study(["a", "b", "c"], False), ("b", "c")) == ("b", "c"), "the hypothesis' own"
    assert compared_ends(study(["a", "b", "c"], True), None) == ("a", "c")
    assert compared_ends(study(["a", "b"], False), None) == ("a", "b")
    assert compared_ends(study(["a", "b", "c"], False), None) is None


def test_metrics_that_moved_are_those_of_the_same_two_levels(sweep: SweepData) -> None:
    rows = {row.metric.key: row for row in moved_metrics(sweep, ("0.2", "0.5"))}
    assert {"policy/entropy", "eval/heldout/pass_at_1", "eval/heldout/pass_at_16", "calibration/ece"} <= set(rows)
    table = final_table(sweep, "diversity/distinct_4")
    row = rows["diversity/distinct_4"]
    assert row.effect is not None and row.effect.difference.mean == pytest.approx((table["0.5"] - table["0.2"]).mean())
    assert row.with_entropy.count == 12 and row.with_entropy.low > 0.5, "in this study diversity follows entropy"
    assert math.isnan(rows["policy/entropy"].with_entropy.mean)
