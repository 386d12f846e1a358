"""n-gram overlap of evaluation and training prompts, on cases small enough to see."""

from __future__ import annotations

import time

from trainer.evaluation.contamination import Overlap, contaminated, overlaps, words_in_a_row

ALPHABET = "a b c d e f g h i j k l m n o p"


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_not() -> None:
    trained = [f"x y {ALPHABET}", "something else"]
    letters = ALPHABET.split()
    asked = ["Q " + " ".join(letters[:13]) + " R", "S " + " ".join(letters[:12]) + " T U", "V, w."]
    assert contaminated(trained, asked, words=13) == [True, False, False]


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


def test_exact_duplicates_count_however_short_and_whatever_the_template() -> None:
    template = "Use each of these numbers once to reach the target at the end of the line, with any signs: {}"
    trained = [template.format(text) for text in ("4 7 = 11", "4 8 = 12")]
    asked = [template.format(text) for text in ("4  7 = 11", "7 4 = 11")]
    assert contaminated(trained, asked) == [True, False], "all but the template is shorter than a run of words"


def test_short_texts_that_differ_in_a_sign_are_no_duplicates() -> None:
    assert contaminated(["3 + 4"], ["3 - 4", "3 + 4"]) == [False, True]


def test_the_words_in_a_row_are_the_fifth_percentile_of_the_lengths_from_8_to_13() -> None:
    """Of 101 texts of 0 to 100 words, each of its own, the 5th percentile is 5; 5 words longer 10, 50 longer 55."""

    def texts(shift: int) -> list[str]:
        return [" ".join(f"w{size}x{word}" for word in range(size + shift)) for size in range(101)]

    assert [words_in_a_row(texts(shift)) for shift in (0, 5, 50)] == [8, 10, 13]
    assert words_in_a_row([]) == 13


def test_every_suite_has_a_row_with_an_example() -> None:
    found = overlaps(["4,7=11:", "1,2=3:"], {"a": ["4,8=12:", "1,2=3:"], "b": ["5,5=10:"], "empty": []})
    assert found == [
        Overlap(suite="a", prompts=2, overlapping=1, words=8, example="1,2=3:"),
        Overlap(suite="b", prompts=1, overlapping=0, words=8, example=None),
    ]
    assert found[0].share == 0.5


def test_it_takes_a_bounded_time() -> None:
    started = time.monotonic()
    trained = [" ".join(str(row * 100 + word) for word in range(100)) for row in range(5000)]
    assert sum(contaminated(trained, [*trained[:500], "x " * 100_000])) == 500
    assert time.monotonic() - started < 20
