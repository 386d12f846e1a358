"""The countdown verifier against hand-worked solutions, a brute-force enumeration and hostile bytes."""

from __future__ import annotations

import time
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.batch.types import Prompt
from trainer.tasks.countdown import Countdown
from trainer.tasks.countdown_steps import MAX_CHARACTERS, canonical, compute, parse, solves

TASK = Countdown()
PROMPT = Prompt(id="example", text="4,7,3,2=26:", data={"numbers": [4, 7, 3, 2], "target": 26})


def brute_force(numbers: tuple[int, ...]) -> dict[int, set[str]]:
    """Every response that is right for some target, by value reached: tries all ordered pairs, all operators."""
    found: dict[int, set[str]] = {}

    def walk(values: tuple[int, ...], written: tuple[str, ...]) -> None:
        for first, second in permutations(range(len(values)), 2):
            left, right = values[first], values[second]
            rest = tuple(v for i, v in enumerate(values) if i not in (first, second))
            results = {"+": left + right, "*": left * right, "-": left - right}
            if left % right == 0:
                results["/"] = left // right
            for operator, result in results.items():
                if result > 0:
                    steps = (*written, f"{left}{operator}{right}={result}")
                    found.setdefault(result, set()).add(",".join(steps))
                    walk((*rest, result), steps)

    walk(numbers, ())
    return found


def test_worked_example_leaves_a_number_unused() -> None:
    # 4*7 = 28 and 28-2 = 26; the 3 stays unused, which the rules allow.
    verdict = TASK.verify(PROMPT, "4*7=28,28-2=26")
    assert (verdict.reward, verdict.answer, verdict.solution) == (1.0, "26", "4*7-2")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4*7=28,28-3=25", "25"),  # every step right, wrong target
        ("4*7=26", "26"),  # wrong arithmetic on the target
        ("4*7=28,28-1=27,27-1=26", "26"),  # 1 was not given
        ("7+7=14,14+4=18,18+3=21,21+2=23,23+3=26", "26"),  # 7 and 3 used twice
        ("4*7=28,28-2=26,28-2=26", "26"),  # intermediate and 2 used twice
        ("3-4=1,4*7=28,28-2=26", "26"),  # negative result written as positive
    ],
)
def test_well_formed_but_wrong_has_an_answer_and_no_reward(text: str, answer: str) -> None:
    verdict = TASK.verify(PROMPT, text)
    assert (verdict.reward, verdict.answer, verdict.solution) == (0.0, answer, None)


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "26", "26=26", "4*7", "4*7=28,", ",4*7=28", "4*7=28,,28-2=26", "4*7=28 ,28-2=26", "4*7=28,28-2=26\n",
        " 4*7=28,28-2=26", "04*7=28,28-2=26", "4*7=28,28-2=+26", "4*7=28,28-2=26.0", "4**7=28", "4-7=-3", "2-2=0",
        "4\u00d77=28,28-2=26", "\u0664*7=28,28-2=26", "4*7=28;28-2=26", "4*7=28,28-2=26\x00", "\ud800",
        "4*7=28,28-2=26" + "," * 300, "__import__('os')", "9999999*1=9999999", "4*7=28,28-2=26)",
        "(4*7=28,28-2=26)", "4*7=28=28", "so4*7=28,28-2=26", "So 4*7=28,28-2=26", "4*7=28 so,28-2=26",
        "a b c d e f g h i 4*7=28,28-2=26", "4*7=28,28-2=26,so ", "abcdefghijklm 4*7=28,28-2=26",
    ],
)  # fmt: skip
def test_malformed_scores_zero_without_an_answer(text: str) -> None:
    verdict = TASK.verify(PROMPT, text)
    assert (verdict.reward, verdict.answer, verdict.solution) == (0.0, None, None)


@given(st.text(max_size=400) | st.text(alphabet="0123456789+-*/=,", max_size=400))
def test_no_text_raises_and_only_parsed_text_has_an_answer(text: str) -> None:
    verdict = TASK.verify(PROMPT, text)
    assert verdict.reward in (0.0, 1.0)
    assert (verdict.answer is None) == (parse(text) is None)


def test_hostile_length_is_refused_before_any_work() -> None:
    texts = ["1+" * 2_000_000, "9" * 4_000_000, "1+1=2," * 700_000, "=" * 4_000_000]
    started = time.perf_counter()
    assert all(TASK.verify(PROMPT, text).reward == 0.0 for text in texts)
    assert time.perf_counter() - started < 0.5
    assert parse("1+1=2," * 42 + "1+1=2") is None and len("1+1=2," * 42 + "1+1=2") == 257 == MAX_CHARACTERS + 1


@pytest.mark.parametrize("numbers", [(2, 3, 4), (1, 1, 5), (6, 2, 2), (4, 7, 3, 2)])
def test_verifier_accepts_exactly_what_brute_force_finds(numbers: tuple[int, ...]) -> None:
    found = brute_force(numbers)
    for target in (1, 5, 6, 12, 24, 26):
        right = found.get(target, set())
        prompt = Prompt(id="p", text="", data={"numbers": list(numbers), "target": target})
        others = {text for value, texts in found.items() if value != target for text in sorted(texts)[:50]}
        assert all(TASK.verify(prompt, text).reward == 1.0 for text in right)
        assert not any(TASK.verify(prompt, text).reward for text in others)


def test_every_two_step_text_over_small_values_agrees_with_brute_force() -> None:
    # All 2-step texts over operands {2,3,4,5,6} and results near the truth; brute force knows the right ones.
    numbers, target = (2, 3, 4), 10
    right = brute_force(numbers).get(target, set())
    prompt = Prompt(id="p", text="", data={"numbers": list(numbers), "target": target})
    firsts = [f"{a}{o}{b}={r}" for a, b, o, r in product((2, 3, 4), (2, 3, 4), "+-*/", (1, 2, 5, 6, 7, 8))]
    seconds = [f"{a}{o}{b}={r}" for a, b, o, r in product((2, 4, 5, 6), (2, 4, 5, 6), "+-*/", (10, 11))]
    accepted = {f"{a},{b}" for a in firsts for b in seconds if TASK.verify(prompt, f"{a},{b}").reward}
    # 2*3 = 6 and 6+4 = 10, in 2 * 2 spellings; nothing else makes 10 in two steps from values in these sets.
    assert accepted == {"2*3=6,6+4=10", "2*3=6,4+6=10", "3*2=6,6+4=10", "3*2=6,4+6=10"}
    assert accepted <= right


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        # Commutation and chains of one kind collapse.
        (["4*7=28,28-2=26", "7*4=28,28-2=26"], "4*7-2"),
        (["4+7=11,11+3=14", "7+3=10,4+10=14", "3+4=7,7+7=14"], "3+4+7"),
        # Independent steps in either order.
        (["4*7=28,3-2=1,28-1=27", "3-2=1,7*4=28,28-1=27"], "2+4*7-3"),
        (["7-3=4,4*2=8,8*4=32", "4*2=8,7-3=4,8*4=32"], "(7-3)*2*4"),
        # An unused step vanishes.
        (["4*7=28,28-2=26", "4*7=28,3+2=5,28-2=26"], "4*7-2"),
        # 8/(4/2) = 8*2/4.
        (["4/2=2,8/2=4", "8*2=16,16/4=4", "8/4=2,2*2=4"], "2*8/4"),
    ],
)
def test_canonical_collapses_spellings(spellings: list[str], expected: str) -> None:
    for text in spellings:
        steps = parse(text)
        assert steps is not None and canonical(steps) == expected


def test_different_solutions_stay_different() -> None:
    texts = ["4*7=28,28-2=26", "7+3=10,10*2=20,20+4=24", "7*3=21,21+4=25,25-2=23", "7-3=4,4*4=16"]
    assert len({canonical(parse(text) or ()) for text in texts}) == 4


@pytest.mark.parametrize(
    ("text", "anchor", "reward"),
    [
        ("4*7=28,28-2=26", 14, 1.0),  # ends where it arrives
        ("so 4*7=28,we get 28-2=26", 24, 1.0),  # words are passed over and count as characters
        ("so 4*7=28,we get 28-2=26,now 26*3=78", 24, 0.0),
        ("4*7=28,28-2=26,26*3=78", 14, 0.0),  # arrives and goes on to something else
        ("4*7=28,28-2=26,26-3=23,23+3=26", 14, 0.0),  # the first arrival counts; the way back uses the 3 twice
        ("3-2=1,4*7=28,28-2=26", None, 0.0),  # the 2 is used up: what looks like an arrival is none
        ("4*7=26,26*3=78", None, 0.0),  # a wrong step
        ("4*7=28,28-3=25", None, 0.0),
        ("4*7=28,28-2=26,", None, 0.0),  # unreadable
    ],
)
def test_the_anchor_is_the_end_of_the_first_step_that_rightly_reaches_the_target(
    text: str, anchor: int | None, reward: float
) -> None:
    verdict = TASK.verify(PROMPT, text)
    assert (verdict.anchor, verdict.reward) == (anchor, reward)


def test_a_right_response_may_have_a_tail() -> None:
    prompt = Prompt(id="p", text="4,7,1,2=26:", data={"numbers": [4, 7, 1, 2], "target": 26})
    verdict = TASK.verify(prompt, "4*7=28,28-2=26,26*1=26")
    assert (verdict.reward, verdict.anchor) == (1.0, 14)


def test_compute_is_the_rule_of_the_game() -> None:
    assert [compute(6, o, 3) for o in "+-*/"] == [9, 3, 18, 2]
    assert [compute(3, o, 6) for o in "-/"] == [None, None]
    assert compute(3, "-", 3) is None and compute(7, "/", 2) is None and compute(7, "/", 0) is None
    assert not solves((), (1, 2), 3)
    with pytest.raises(ValueError, match="unknown operator"):
        compute(1, "%", 1)
