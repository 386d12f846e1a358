"""The YAML of a claim: what is read from it, and one sentence for what cannot be judged."""

from __future__ import annotations

from typing import Any

import pytest

from dashboards.claims.claim import parse_claim

GOOD: dict[str, Any] = {
    "number": 7,
    "statement": "S",
    "source": "P",
    "arms": {"a": "level a", "b": "level b", "c": "level c"},
    "tests": [{"value": {"end": "x"}, "expect": "increase"}],
}


def test_the_comparison_follows_from_the_number_of_arms() -> None:
    tests = [
        {"value": {"end": "x"}, "expect": "increase"},
        {"value": {"end": "x"}, "arms": ["a", "b"], "expect": {"within": 0.1}},
        {"value": {"deviation": "x", "target": 0.5}, "arms": ["c"], "expect": {"below": 0.1}},
    ]
    found = parse_claim(GOOD | {"tests": tests})
    assert [test.compare for test in found.tests] == ["trend", "difference", "value"]
    assert [test.words for test in found.tests] == [
        "x at the end: a → b → c, above 0",
        "x at the end: b - a, within -0.1 and +0.1",
        "distance of x from 0.5 over the second half: c, below 0.1",
    ]
    assert found.metrics == {"x"}


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        ({"value": {"ende": "x"}, "expect": "increase"}, "value begins with one of end, change"),
        ({"value": "x", "expect": "increase"}, "value begins with one of end, change"),
        ({"value": {"end": "x", "target": 1}, "expect": "increase"}, "value end has no options, not 'target'"),
        ({"value": {"deviation": "x", "goal": 1}, "expect": "increase"}, "has the options target, not 'goal'"),
        ({"value": {"end": "x"}, "arms": ["d"], "expect": {"above": 0}}, "arm 'd' is not one of a, b, c"),
        ({"value": {"end": "x"}, "arms": ["a"], "expect": "increase"}, "compare=value expects {above: x}"),
        ({"value": {"end": "x"}, "expect": {"within": 1}}, "compare=trend expects increase, decrease, not"),
        ({"value": {"end": "x"}, "expect": "rise"}, "compare=trend expects increase, decrease, not 'rise'"),
        (
            {"value": {"end": "x"}, "compare": "peak", "arms": ["a", "b"], "expect": "increase"},
            "takes 3 or more arms, not 2",
        ),
        ({"value": {"end": "x"}, "compare": "best", "expect": "increase"}, "compare='best' is not one of value"),
        ({"value": {"end": "x"}, "compare": "any", "expect": "increase"}, "compare=any expects 'differ'"),
        ({"value": {"end": "x"}, "expects": "increase"}, "a test has value, arms, compare and expect, not 'expects'"),
    ],
)
def test_a_test_that_cannot_be_judged_is_one_sentence_with_the_number_of_its_claim(test: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^claim 7: ") as error:
        parse_claim(GOOD | {"tests": [test]})
    assert sentence in str(error.value) and "\n" not in str(error.value)
