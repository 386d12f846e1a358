"""n-gram overlap of evaluation and training prompts, on cases small enough to see."""

from __future__ import annotations

import time

from trainer.suites.contamination import contaminated

ALPHABET = "a b c d e f g h i j k l m n o p"


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_not() -> None:
    trained = [f"x y {ALPHABET}", "something else"]
    letters = ALPHABET.split()
    asked = ["Q " + " ".join(letters[:13]) + " R", "S " + " ".join(letters[:12]) + " T U", "V, w."]
    assert contaminated(trained, asked) == [True, False, False]


def test_case_and_punctuation_do_not_hide_an_overlap() -> None:
    trained, asked = ["a b c d", "w x y z"], ["Q: A, b; C! R", "T"]
    assert contaminated(trained, asked, words=3) == [True, False]


def test_the_template_is_no_overlap_and_neither_is_its_edge() -> None:
    template = "Solve this problem: {} Reason step by step and box the result."
    trained = [template.format(text) for text in ("one plus two", "four plus five")]
    asked = [template.format(text) for text in ("two", "eight plus nine", "one plus two minus four")]
    assert contaminated(trained, asked, words=3) == [False, False, True]


def test_a_short_text_has_to_be_trained_on_as_a_whole() -> None:
    assert contaminated(["4,7=11:", "4,8=12:"], ["4,7=11:", "4,7=12:"]) == [True, False]
    assert contaminated([], ["4,7=11:"]) == [False]
    assert contaminated(["4,7=11:"], []) == []


def test_it_takes_a_bounded_time() -> None:
    started = time.monotonic()
    trained = [" ".join(str(row * 100 + word) for word in range(100)) for row in range(5000)]
    assert sum(contaminated(trained, [*trained[:500], "x " * 100_000])) == 500
    assert time.monotonic() - started < 20
