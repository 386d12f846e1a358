"""Verdicts on claims: by hand, and how often they are wrong and right on simulated runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dashboards.claims.claim import Claim, parse_claim
from dashboards.claims.judge import MIN_SEEDS, judge, judge_claim, judge_numbers

END = {"end": "x"}


def claim(*tests: Mapping[str, Any], arms: Sequence[str] = "ab", number: int = 1) -> Claim:
    return parse_claim(
        {
            "number": number,
            "statement": "S",
            "source": "P",
            "arms": {arm: f"level {arm}" for arm in arms},
            "tests": tests,
        }
    )


def runs(**numbers: Sequence[float]) -> dict[tuple[str, int], pd.DataFrame]:
    """Runs of one step whose x is the number, by arm and seed."""
    return {
        (f"level {arm}", seed): pd.DataFrame({"x": [number]})
        for arm, values in numbers.items()
        for seed, number in enumerate(values)
    }


def outcome(test: Mapping[str, Any], **numbers: Sequence[float]) -> str:
    return judge_claim(claim(test, arms=list(numbers)), runs(**numbers)).outcome


def test_a_difference_has_the_t_interval_of_the_pairs() -> None:
    found = (
        judge_claim(claim({"value": END, "expect": "increase"}), runs(a=[0, 0, 0], b=[1, 2, 3]))
        .results[0]
        .comparisons[0]
    )
    # Mean 2, s = 1, n = 3: t(0.975, 2) = 4.3027, half width 4.3027 / sqrt(3); p of t = 2 sqrt(3), 2 degrees of freedom.
    assert (found.interval.low, found.interval.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
    assert found.p_value == pytest.approx(0.0741799, abs=1e-6)
    assert found.outcome == "not decided" and found.resolution > 0


def test_directions_bounds_and_margins() -> None:
    assert outcome({"value": END, "expect": "increase"}, a=[0, 1, 2], b=[2, 3.1, 4]) == "reproduced"
    assert outcome({"value": END, "expect": "decrease"}, a=[0, 1, 2], b=[2, 3.1, 4]) == "contradicted"
    assert outcome({"value": END, "expect": {"above": 1.5}}, a=[0, 1, 2], b=[2, 3.1, 4]) == "reproduced"
    assert outcome({"value": END, "expect": {"above": 3}}, a=[0, 1, 2], b=[2, 3.1, 4]) == "contradicted"
    assert outcome({"value": END, "expect": {"within": 2.5}}, a=[0, 1, 2], b=[2, 3.1, 4]) == "reproduced"
    assert outcome({"value": END, "expect": {"within": 1}}, a=[0, 1, 2], b=[2, 3.1, 4]) == "contradicted"
    assert outcome({"value": END, "expect": {"within": 2.05}}, a=[0, 1, 2], b=[2, 3.1, 4]) == "not decided"
    assert outcome({"value": END, "expect": {"below": 1}}, a=[0.5, 0.6, 0.7]) == "reproduced"


def test_a_trend_needs_order_within_seeds_and_different_ends() -> None:
    rising = {"a": [0, 0.1, 0.2], "b": [1, 1.1, 1.2], "c": [2, 2.1, 2.3]}
    assert outcome({"value": END, "expect": "increase"}, **rising) == "reproduced"
    assert outcome({"value": END, "expect": "decrease"}, **rising) == "contradicted"
    # The ends differ, the levels between them are in no order: Page's p is above 0.05.
    mixed = {"a": [0, 0.1, 0.2], "b": [3, 3.1, 3.2], "c": [2, 2.1, 2.3]}
    assert outcome({"value": END, "expect": "increase"}, **mixed) == "not decided"


def test_a_peak_is_above_both_ends() -> None:
    test = {"value": END, "compare": "peak", "expect": "increase"}
    assert outcome(test, a=[0, 0.1, 0], b=[1, 1, 1], c=[0, 0, 0.1]) == "reproduced"
    assert outcome(test, a=[0, 0.1, 0], b=[1, 1, 1], c=[2, 2, 2.1]) == "contradicted"


def test_an_interaction_is_a_difference_of_differences() -> None:
    test = {"value": END, "compare": "interaction", "expect": "increase"}
    numbers = {"a": [0, 1, 2], "b": [1, 2, 3.0], "c": [0, 0, 0], "d": [3, 3, 3.2]}
    found = judge_claim(claim(test, arms="abcd"), runs(**numbers)).results[0].comparisons[0]
    assert found.numbers == pytest.approx((2, 2, 2.2)) and found.outcome == "reproduced"


def test_arms_that_differ_in_no_stated_order() -> None:
    test = {"value": END, "compare": "any", "expect": "differ"}
    assert outcome(test, a=[1, 2, 3, 4], b=[2, 3, 4, 5], c=[0, 1, 2, 3]) == "reproduced"
    assert outcome(test, a=[1, 2, 3, 4], b=[2, 1, 4, 3], c=[0, 3, 2, 5]) == "not decided"


def test_below_three_seeds_nothing_is_decided() -> None:
    assert outcome({"value": END, "expect": "increase"}, a=[0, 0], b=[5, 5.01]) == "not decided"


def test_without_runs_a_claim_is_not_run() -> None:
    found = judge_claim(claim({"value": END, "expect": "increase"}), runs(a=[1, 2]))
    assert found.outcome == "not run" and found.seeds == 0


def test_seeds_count_only_where_every_arm_has_a_number() -> None:
    numbers = runs(a=[0, 1, 2, 3], b=[1, 2.1, 3])
    numbers["level b", 1] = pd.DataFrame({"y": [1.0]})
    assert judge_claim(claim({"value": END, "expect": "increase"}), numbers).seeds == 2


def test_all_tests_must_hold_and_the_weakest_gives_the_p() -> None:
    strong, weak = {"value": END, "expect": "increase"}, {"value": END, "expect": {"above": 0.9}}
    found = judge_claim(claim(strong, weak), runs(a=[0, 0, 0], b=[1, 1.2, 1.1]))
    assert [result.outcome for result in found.results] == ["reproduced", "not decided"]
    assert found.outcome == "not decided" and found.p_value == found.results[1].p_value > found.results[0].p_value


def test_a_contradiction_among_several_tests_needs_the_wider_interval() -> None:
    # Mean -1, s = 0.28, n = 3: clear of 0 at 5 % (half width 0.70) and not at 2.5 % (half width 1.0).
    numbers = runs(a=[0, 0, 0], b=[-0.72, -1, -1.28])
    test = {"value": END, "expect": "increase"}
    assert judge_claim(claim(test), numbers).outcome == "contradicted"
    assert judge_claim(claim(test, test), numbers).outcome == "not decided"


def test_holm_takes_the_number_of_claims_into_account() -> None:
    numbers = runs(a=[0, 0, 0], b=[1, 2, 3])
    found = judge([claim({"value": END, "expect": "increase"}, number=n) for n in (1, 2)], numbers)
    assert found[0].holm_p == pytest.approx(2 * found[0].p_value)


def test_a_claim_is_judged_on_the_seeds_and_at_the_level_of_its_look() -> None:
    document = {
        "number": 1,
        "statement": "S",
        "source": "P",
        "arms": {"a": "level a"},
        "seeds": [0, 1, 2],
        "alpha": 0.01,
    }
    found = parse_claim(document | {"tests": [{"value": END, "expect": {"above": 0}}]})
    verdict = judge_claim(found, runs(a=[1, 1.2, 1.4, 99]))
    # t = 1.2 / (0.2 / sqrt(3)) = 10.4: p = 0.0091, reproduced at 1 % on three seeds.
    assert (verdict.seeds, verdict.outcome) == (3, "reproduced")
    assert judge_claim(found, runs(a=[1, 1.3, 1.6])).outcome == "not decided"


SHAPES: dict[str, tuple[dict[str, Any], np.ndarray, np.ndarray]] = {
    # test, means of the arms where the claim is only just false, means where it is true by five standard deviations
    "value": ({"value": END, "expect": {"above": 0}}, np.zeros(1), np.array([5.0])),
    "difference": ({"value": END, "expect": "increase"}, np.zeros(2), np.array([0.0, 5])),
    "margin": ({"value": END, "expect": {"within": 5}}, np.array([0.0, 5]), np.zeros(2)),
    "trend": ({"value": END, "expect": "increase"}, np.zeros(3), np.array([0.0, 3, 6])),
    "peak": ({"value": END, "compare": "peak", "expect": "increase"}, np.array([0.0, 9, 9]), np.array([0.0, 6, 0])),
    "interaction": (
        {"value": END, "compare": "interaction", "expect": "increase"},
        np.zeros(4),
        np.array([0.0, 0, 0, 8]),
    ),
    "any": ({"value": END, "compare": "any", "expect": "differ"}, np.zeros(3), np.array([0.0, 5, 9])),
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_wrong_verdicts_are_rare_and_true_effects_are_found(shape: str) -> None:
    test, null, true = SHAPES[shape]
    arms = "abcd"[: len(null)]
    found = claim(test, arms=arms).tests[0]
    generator = np.random.default_rng(0)

    def rate(means: np.ndarray, wanted: str, draws: int) -> float:
        drawn = (pd.DataFrame(means + generator.normal(size=(5, len(means))), columns=list(arms)) for _ in range(draws))
        return sum(judge_numbers(found, table, 0.05, 0.05).outcome == wanted for table in drawn) / draws

    # A true null is called reproduced in 2.5 % (one side of 5 %) and contradicted in no more; "any" has one side.
    # 400 draws have a standard error of 1 %.
    assert rate(null, "reproduced", 400) <= (0.05 if shape == "any" else 0.025) + 0.03
    assert rate(null, "contradicted", 400) <= 0.025 + 0.03
    assert rate(true, "reproduced", 60) >= 0.8
    assert MIN_SEEDS == 3
