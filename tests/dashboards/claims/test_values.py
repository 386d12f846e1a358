"""The number that a claim takes from a run, against sums done by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from dashboards.claims.values import VALUES, evaluate, metrics_of
from dashboards.sweep.names import ENTROPY
from dashboards.sweep.names import SAMPLED_REWARD as REWARD

NAN = float("nan")


def frame(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def value(of: pd.DataFrame, **spec: object) -> float:
    return evaluate(spec, {"a": of})["a"]


def test_the_end_is_the_mean_of_the_last_five_logged_steps() -> None:
    assert value(frame(x=[9.0, 1, 2, 3, 4, 5, NAN]), end="x") == 3.0


def test_the_end_of_an_evaluation_is_its_last_value() -> None:
    assert value(pd.DataFrame({"eval/s/x": [0.1, NAN, 0.7, NAN]}), end="eval/s/x") == 0.7


def test_a_change_is_the_end_less_the_first_value() -> None:
    assert value(frame(x=[10.0, 1, 2, 3, 4, 5]), change="x") == 3.0 - 10.0


def test_the_spread_is_the_deviation_of_the_changes_from_step_to_step() -> None:
    # Changes 1, 3, 2: mean 2, squares 1 + 1 + 0, over n - 1 = 2.
    assert value(frame(x=[0.0, 1, 4, 6]), spread="x") == pytest.approx(1.0)


def test_the_deviation_is_taken_over_the_second_half() -> None:
    of = frame(x=[1.0, 5.0, 2.0, 3.0])
    assert value(of, deviation="x", target=2.5) == pytest.approx(0.5)
    assert value(of, deviation="x", target="first") == pytest.approx(1.5)


def test_a_rank_correlation_sees_any_monotone_relation_and_pearsons_only_a_line() -> None:
    of = frame(x=[1.0, 2, 3, 4, 5], y=[1.0, 4, 9, 16, 25])
    assert value(of, correlation=["x", "y"]) == pytest.approx(1.0)
    # sum dx dy = 60, sum dx^2 = 10, sum dy^2 = 374.
    assert value(of, correlation=["x", "y"], rank=False) == pytest.approx(60 / math.sqrt(3740))
    assert value(of, slope=["x", "y"]) == pytest.approx(6.0)


def test_a_correlation_within_a_run_needs_five_steps_and_something_that_varies() -> None:
    assert math.isnan(value(frame(x=[1.0, 2, 3, 4], y=[1.0, 2, 3, 4]), correlation=["x", "y"]))
    assert math.isnan(value(frame(x=[1.0, 2, 3, 4, 5], y=[2.0] * 5), correlation=["x", "y"]))


def test_shares() -> None:
    of = frame(x=[-1.0, 1.0, -2.0, 0.0], y=[3.0, -1.0, 0.0, 0.0])
    assert value(of, share_below="x") == 0.5
    assert value(of, share_below="x", bound=-1.5) == 0.25
    assert value(of, share_of="x", among=["x", "y"]) == 0.5


def test_a_lead_is_over_the_best_of_the_others() -> None:
    of = pd.DataFrame({"ledger/corr_a": [0.5, 0.7], "ledger/corr_b": [0.1, 0.3], "ledger/corr_c": [0.4, 0.4]})
    assert value(of, lead="a", over=["b", "c"]) == pytest.approx(0.6 - 0.4)
    assert metrics_of({"lead": "a", "over": ["b", "c"]}) == {f"ledger/corr_{name}" for name in "abc"}


def test_the_law_fits_and_predicts_a_run_that_obeys_it() -> None:
    entropy = np.linspace(1.0, 0.2, 40)
    of = pd.DataFrame({ENTROPY: entropy, REWARD: 1.0 - 0.3 * np.exp(entropy)})
    assert value(of, law_fit=1) == pytest.approx(1.0)
    assert value(of, law_error=0.15) == pytest.approx(0.0, abs=1e-9)
    broken = of.assign(**{REWARD: [*of[REWARD][:20], *[0.9] * 20]})
    assert value(broken, law_error=0.15) == pytest.approx(
        float(np.sqrt(np.mean((np.r_[of[REWARD][6:20], of[REWARD][20:]] - np.r_[of[REWARD][6:20], [0.9] * 20]) ** 2)))
    )


def test_at_equal_reward_is_read_where_both_arms_first_reach_what_the_weaker_one_reaches() -> None:
    steps = np.arange(10.0)
    fast = pd.DataFrame({REWARD: steps, "x": 100 - steps})
    slow = pd.DataFrame({REWARD: steps / 2, "x": 50 - steps})
    # Smoothed over five steps, slow ends at (5..9)/2 -> 3.5, where x is 43; fast is there at steps 2..6 -> 4, x = 96.
    assert evaluate({"at_equal_reward": "x"}, {"slow": slow, "fast": fast}) == {"slow": 43.0, "fast": 96.0}


def test_a_metric_that_was_not_logged_is_no_number() -> None:
    arguments = {"lead": ("a", {"over": ["b"]}), "law_fit": (1, {}), "law_error": (0.15, {})}
    for name in VALUES:
        argument, options = arguments.get(name, (["x", "y"] if name in ("correlation", "slope") else "x", {}))
        options = options | ({"target": 0} if name == "deviation" else {"among": ["x"]} if name == "share_of" else {})
        assert math.isnan(value(frame(z=[1.0] * 9), **{name: argument, **options})), name
