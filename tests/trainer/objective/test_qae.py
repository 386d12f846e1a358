"""Quantile baseline: the table of specification 7, ties of K and G, and groups without a spread."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
from testbench import rewarded

from trainer.contract.settings import ConfigError
from trainer.objective.advantages.qae import QAE


def baseline(correct: int, size: int, **settings: Any) -> float:
    """The quantile of a group with ``correct`` ones among ``size``, read off the advantages."""
    rewards = [1.0] * correct + [0.0] * (size - correct)
    got = QAE(eps=0.0, **settings)(rewarded(rewards)).tolist()
    p = correct / size
    std = sqrt(p * (1 - p) * (size / (size - 1) if settings.get("ddof") else 1))
    return 1.0 - got[0] * std


@pytest.mark.parametrize(
    ("quantile", "rule", "expected"),
    [
        # G = 8. inf: ceil(0.4 * 8) = 4 zeros are enough for 0, that is up to 4 right; ceil(0.6 * 8) = 5: up to 3 right.
        (0.4, "inf", [0, 0, 0, 0, 1, 1, 1]),
        (0.6, "inf", [0, 0, 0, 1, 1, 1, 1]),
        # linear: place 0.4 * 7 = 2.8 of the sorted rewards; with 3 zeros that is 0.8 of the way from 0 to 1.
        (0.4, "linear", [0, 0, 0, 0, 0.8, 1, 1]),
        # place 0.6 * 7 = 4.2; with 5 zeros that is 0.2 of the way.
        (0.6, "linear", [0, 0, 0.2, 1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("ddof", [0, 1])
def test_baseline_of_every_mixed_group_of_eight(quantile: float, rule: str, expected: list[float], ddof: int) -> None:
    got = [baseline(correct, 8, quantile=quantile, rule=rule, ddof=ddof) for correct in range(1, 8)]
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("quantile", "size", "correct", "expected"),
    [(0.4, 10, 6, 0), (0.4, 10, 7, 1), (0.6, 5, 2, 0), (0.28, 25, 18, 0), (0.28, 25, 19, 1), (0.1, 10, 9, 0)],
)
def test_ties_are_decided_on_whole_numbers(quantile: float, size: int, correct: int, expected: float) -> None:
    # 0.28 * 25 is 7.000000000000001 in floating point: 7 zeros (18 right) still give 0.
    assert baseline(correct, size, quantile=quantile) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("correct", range(1, 8))
def test_one_sign_per_group_with_the_paper_s_magnitude(correct: int) -> None:
    got = QAE(eps=0.0)(rewarded([1.0] * correct + [0.0] * (8 - correct))).tolist()
    p = correct / 8
    magnitude = 1 / sqrt(p * (1 - p))  # the reward's distance from the baseline is 1, over sqrt(p (1 - p))
    right, wrong = (magnitude, 0.0) if correct <= 4 else (0.0, -magnitude)
    assert got == pytest.approx([right] * correct + [wrong] * (8 - correct), abs=1e-6)


@pytest.mark.parametrize("rule", ["inf", "linear"])
@pytest.mark.parametrize("rewards", [[0.0] * 5, [1.0] * 5, [0.1] * 7, [1.0], [0.0]])
def test_groups_without_a_spread_give_exactly_zero(rule: Any, rewards: list[float]) -> None:
    assert QAE(rule=rule)(rewarded(rewards)).tolist() == [0.0] * len(rewards)


def test_rewards_of_more_than_two_values() -> None:
    # Sorted -1, 0, 0.5, 2; ceil(0.4 * 4) = 2nd smallest: 0. Population std of (-1, 0, 0.5, 2): mean 0.375,
    # squares about it 1.890625 + 0.140625 + 0.015625 + 2.640625 = 4.6875 over 4 = 1.171875, root 1.0825318.
    got = QAE()(rewarded([2.0, 0.0, -1.0, 0.5])).tolist()
    assert got == pytest.approx([2 / 1.0825318, 0.0, -1 / 1.0825318, 0.5 / 1.0825318], abs=2e-6)


def test_groups_do_not_see_each_other_and_need_not_be_in_order() -> None:
    got = QAE(eps=0.0)(rewarded([1, 1, 0, 1, 0, 0], [5, 2, 2, 5, 5, 2])).tolist()
    # Group 5: (1, 1, 0), ceil(1.2) = 2nd smallest is 1, std sqrt(2)/3. Group 2: (1, 0, 0): baseline 0.
    unit = 3 / sqrt(2)
    assert got == pytest.approx([0, unit, 0, 0, -unit, 0], abs=1e-6)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.2, 1.5])
def test_a_quantile_outside_the_open_interval_is_refused(quantile: float) -> None:
    with pytest.raises(ConfigError, match=r"advantage\.quantile=.* between 0 and 1"):
        QAE(quantile=quantile)
