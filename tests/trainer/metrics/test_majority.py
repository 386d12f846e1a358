"""maj@k against counting by hand and against all subsets."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from trainer.metrics import majority
from trainer.metrics.majority import majority_at_k


def vote(answers: list[str | None], correct: list[bool]) -> float:
    """maj@n by its definition."""
    given = Counter(answer for answer in answers if answer is not None)
    tied = [answer for answer, count in given.items() if count == max(given.values())]
    right = [sum(c for a, c in zip(answers, correct, strict=True) if a == answer) / given[answer] for answer in tied]
    return sum(right) / len(tied) if tied else 0.0


def test_majority_of_all_samples_wins() -> None:
    assert majority_at_k(["7", "7", "3"], [True, True, False], 3) == 1.0
    assert majority_at_k(["7", "3", "3"], [True, False, False], 3) == 0.0


def test_tie_gives_expected_accuracy() -> None:
    # Two answers with two votes each, one of them correct: a coin. Three tied, one right: a third.
    assert majority_at_k(["7", "3", "7", "3", "9"], [True, False, True, False, False], 5) == 0.5
    assert majority_at_k(["1", "2", "3"], [False, True, False], 3) == pytest.approx(1 / 3)


def test_unreadable_answers_have_no_vote() -> None:
    assert majority_at_k([None, None, None, "7"], [False, False, False, True], 4) == 1.0
    assert majority_at_k([None, None], [False, False], 2) == 0.0
    # Two of four: C(4,2) = 6 pairs, the three with the 7 score 1, the others nothing.
    assert majority_at_k([None, None, None, "7"], [False, False, False, True], 2) == pytest.approx(1 / 2)


def test_answer_judged_with_its_working_counts_as_a_fraction() -> None:
    # "24" wins with three votes, of which the working of two was right.
    assert majority_at_k(["24", "24", "24", "5"], [True, True, False, False], 4) == pytest.approx(2 / 3)


def test_vote_of_three_of_five_by_hand() -> None:
    """Three 7 (correct) and two 3. Of C(5,3) = 10 subsets those with two or three 7 score 1: C(3,2) C(2,1) + 1 = 7."""
    assert majority_at_k(["7", "7", "7", "3", "3"], [True] * 3 + [False] * 2, 3) == pytest.approx(7 / 10)


def test_vote_of_two_of_three_by_hand() -> None:
    """7, 7 (correct), 3: one pair is unanimous and scores 1, two pairs are ties and score 1/2: (1 + 1) / 3."""
    assert majority_at_k(["7", "7", "3"], [True, True, False], 2) == pytest.approx(2 / 3)


def test_vote_of_one_is_the_share_of_correct_answers() -> None:
    assert majority_at_k(["7", "7", None, "3", "3"], [True, False, False, False, False], 1) == pytest.approx(1 / 5)


@pytest.mark.parametrize("seed", range(12))
def test_every_k_is_the_mean_over_all_subsets(seed: int) -> None:
    draw = random.Random(seed)
    answers = [draw.choice(["a", "b", "c", "d", None][: 2 + seed % 4]) for _ in range(9)]
    correct = [answer is not None and draw.random() < (0.8 if answer == "a" else 0.2) for answer in answers]
    for k in range(1, 10):
        subsets = list(combinations(range(9), k))
        scores = [vote([answers[i] for i in subset], [correct[i] for i in subset]) for subset in subsets]
        assert majority_at_k(answers, correct, k) == pytest.approx(sum(scores) / len(scores), abs=1e-12), k


def test_two_answers_follow_the_hypergeometric_law() -> None:
    """700 of 1000 correct, k odd: P(more than half of k are) of a hypergeometric number, from scipy."""
    from scipy.stats import hypergeom

    answers, correct = ["7"] * 700 + ["3"] * 300, [True] * 700 + [False] * 300
    for k in (3, 15, 31):
        assert majority_at_k(answers, correct, k) == pytest.approx(hypergeom(1000, 700, k).sf(k // 2), abs=1e-10)


def test_drawn_subsets_agree_with_counting_within_their_error() -> None:
    votes, n = ((2, 1), (5, 5), (8, 0), (9, 3)), 30
    for k in (2, 7, 20):
        mean, error = majority._monte_carlo(votes, n, k)
        assert 0 < error <= 1 / (2 * majority.DRAWS**0.5)
        assert abs(mean - majority._exact(votes, n, k)) < 5 * error
        assert majority._monte_carlo(votes, n, k) == (mean, error), "the seed is made of the counts"


def test_many_samples_with_many_answers_are_drawn_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(majority, "_exact", None)
    generator = np.random.default_rng(1)
    answers = [str(number) for number in generator.integers(0, 200, 1024)]
    assert 0 <= majority_at_k(answers, [answer == "7" for answer in answers], 256) < 0.5


@pytest.mark.parametrize(("correct", "k"), [([True, False], 1), ([True], 2), ([True], 0)])
def test_what_does_not_pair_up_or_fit_is_refused(correct: list[bool], k: int) -> None:
    with pytest.raises(ValueError, match="maj@"):
        majority_at_k(["1"], correct, k)
