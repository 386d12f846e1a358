"""Calibration by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from trainer.batch.types import Rollout
from trainer.metrics.calibration import (
    auroc,
    average_ranks,
    brier,
    calibration_metrics,
    ece,
    logprob_confidence,
    majority_confidence,
    reliability,
)


def test_always_certain_and_seven_in_ten_right() -> None:
    confidence, correct = np.ones(10), [1] * 7 + [0] * 3
    points = reliability(confidence, correct)
    assert [(p.confidence, p.accuracy, p.count) for p in points] == [(1.0, 0.7, 10)]
    assert ece(points) == pytest.approx(0.3)
    assert brier(confidence, correct) == pytest.approx(0.3)


def test_confidence_equal_to_accuracy_in_each_bin_has_no_error() -> None:
    confidence = [0.25] * 4 + [0.75] * 4
    correct = [1, 0, 0, 0, 1, 1, 1, 0]
    assert ece(reliability(confidence, correct)) == 0.0
    # Brier: 0.25-bin (0.75^2 + 3 * 0.25^2)/4 = 0.1875, the other the same by symmetry.
    assert brier(confidence, correct) == pytest.approx(0.1875)


def test_bins_by_hand() -> None:
    # Bins of 0.5: {0.1, 0.3} accuracy 1/2 confidence 0.2; {0.5, 1.0} (0.5 belongs above) accuracy 1/2, confidence 0.75.
    points = reliability([0.1, 0.3, 0.5, 1.0], [1, 0, 1, 0], bins=2)
    assert [p.count for p in points] == [2, 2]
    assert ece(points) == pytest.approx(0.5 * 0.3 + 0.5 * 0.25)


def test_empty_bins_contribute_nothing() -> None:
    assert len(reliability([0.05, 0.95], [0, 1])) == 2
    assert math.isnan(ece(reliability([], [])))


def test_auroc_counts_pairs() -> None:
    # Right at 0.9 and 0.4, wrong at 0.5 and 0.4: pairs won 0.9>0.5, 0.9>0.4; lost 0.4<0.5; tie 0.4=0.4 -> 2.5 of 4.
    assert auroc([0.9, 0.4, 0.5, 0.4], [1, 1, 0, 0]) == pytest.approx(2.5 / 4)
    assert auroc([0.9, 0.8, 0.1], [1, 1, 0]) == 1.0
    assert auroc([0.5, 0.5, 0.5], [1, 0, 0]) == 0.5
    assert math.isnan(auroc([0.5, 0.6], [1, 1]))


def test_auroc_equals_the_pair_count_with_ties() -> None:
    generator = np.random.default_rng(0)
    confidence, correct = generator.integers(0, 6, 80) / 6, generator.integers(0, 2, 80)
    right, wrong = confidence[correct == 1], confidence[correct == 0]
    wins = (right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean()
    assert auroc(confidence, correct) == pytest.approx(wins)


def test_ranks_share_ties() -> None:
    assert average_ranks(np.array([3.0, 1.0, 3.0])).tolist() == [2.5, 1.0, 2.5]


def test_logprob_confidence_is_the_geometric_mean_of_sampled_tokens(make_rollout: Callable[..., Rollout]) -> None:
    # Probabilities 1/2 and 1/8: geometric mean 1/4. The leading context token does not count.
    logprobs = (math.log(0.5), math.log(0.125))
    rollouts = [
        make_rollout(ids=(1, 2), logprobs=logprobs),
        make_rollout(ids=(7, 1, 2), logprobs=(-50.0, *logprobs), num_context=1),
        make_rollout(ids=(), logprobs=()),
    ]
    np.testing.assert_allclose(logprob_confidence(rollouts), [0.25, 0.25, 1.0])


def test_majority_confidence_is_the_share_that_agrees(make_rollout: Callable[..., Rollout]) -> None:
    answers = ["7", "7", "3", None]
    rollouts = [make_rollout(0, answer=answer) for answer in answers] + [make_rollout(1, answer="7")]
    assert majority_confidence(rollouts).tolist() == [0.5, 0.5, 0.25, 0.0, 1.0]


def test_metrics_of_rollouts(make_rollout: Callable[..., Rollout]) -> None:
    # Confidence 1/2 everywhere, one right: ECE |1/2 - 1/2| = 0, Brier 1/4, AUROC 1/2 (all tied).
    # Agreement: the two answers differ, 1/2 each: the same numbers.
    half = (math.log(0.5),)
    rollouts = [
        make_rollout(0, ids=(1,), logprobs=half, reward=1.0, answer="7"),
        make_rollout(0, ids=(2,), logprobs=half, reward=0.0, answer="3"),
    ]
    metrics, points = calibration_metrics(rollouts)
    assert metrics == pytest.approx(
        {"ece": 0, "brier": 0.25, "auroc": 0.5, "ece_majority": 0, "brier_majority": 0.25, "auroc_majority": 0.5},
        abs=1e-12,
    )
    assert points["logprob"][0].count == 2
    only_right, _ = calibration_metrics(rollouts[:1])
    assert "auroc" not in only_right, "undefined metrics are absent, not nan"


def test_stated_confidence_is_judged_over_the_responses_that_state_one(make_rollout: Callable[..., Rollout]) -> None:
    """Right at 0.9 and 0.5, wrong at 0.5, one silent. ECE: bin 0.9 gap 0.1 of 1, bin 0.5 gap 0 of 2, over 3. Brier
    (0.01 + 0.25 + 0.25) / 3. Of the two pairs one is won and one tied: AUROC 3/4."""
    said = [(1.0, "<confidence>0.9</confidence>"), (1.0, "<confidence>50%</confidence>"),
            (0.0, "<confidence> .5 </confidence>"), (1.0, "sure")]  # fmt: skip
    metrics, points = calibration_metrics([make_rollout(reward=reward, text=text) for reward, text in said])
    stated = {name: value for name, value in metrics.items() if "stated" in name}
    expected = {"stated_frac": 3 / 4, "ece_stated": 0.1 / 3, "brier_stated": 0.17, "auroc_stated": 3 / 4}
    assert stated == pytest.approx(expected)
    assert [point.count for point in points["stated"]] == [2, 1]
    assert metrics["ece_majority"] == 0.75, "four of one prompt, none with a readable answer"


def test_without_a_stated_confidence_there_are_no_numbers_of_it(make_rollout: Callable[..., Rollout]) -> None:
    metrics, points = calibration_metrics([make_rollout(), make_rollout(text="<confidence>2</confidence>")])
    assert not [name for name in metrics if "stated" in name] and "stated" not in points


@pytest.mark.parametrize("confidence", [[1.2], [-0.1], [math.nan]])
def test_confidence_must_be_a_probability(confidence: list[float]) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        brier(confidence, [1])


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="one confidence per response"):
        ece(reliability([0.5, 0.5], [1]))
