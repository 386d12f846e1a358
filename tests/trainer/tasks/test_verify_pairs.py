"""The verifier of the JSONL task on pairs of correct answer and response, and on text made to break it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.batch.types import Prompt, Verdict
from trainer.tasks.jsonl import JsonlTask

NOT_COMPARABLE = None

PAIRS: list[tuple[str, str, bool | None]] = [
    # Structure that braces and spaces carry.
    (r"2^{n+1}", r"2^n+1", False),
    (r"\sqrt{x+4}", r"\sqrt{x}+4", False),
    (r"\frac{1}{x+3}", r"\frac{1}{x}+3", False),
    (r"31/4", r"3 1/4", False),
    (r"x^{12}", r"x^1 2", NOT_COMPARABLE),
    # Spellings of numbers.
    (r"\frac{1}{2}", r"\frac12", True),
    (r"\frac{1}{2}", r"\cfrac{1}{2}", True),
    (r"\frac{1}{2}", r"\tfrac 1 2", True),
    (r"\frac{1}{2}", r".5", True),
    (r"0.5", r"\frac{2}{4}", True),
    (r"1000", r"1{,}000", True),
    (r"1,000", r"1000", True),
    (r"10000", r"10\,000", True),
    (r"18", r"\$18.00", True),
    (r"-3", "\u22123", True),
    (r"13/4", r"3\frac{1}{4}", True),
    (r"13/4", r"3 1/4", True),
    (r"-\frac{13}{4}", r"-3\frac14", True),
    (r"3000", r"3\times10^3", True),
    (r"0.0003", r"3\cdot10^{-4}", True),
    (r"\frac{1}{3}", r"0.\overline{3}", True),
    (r"\frac{1}{3}", r"0.333333", False),
    (r"-\frac{1}{2}", r"\frac{-1}{2}", True),
    (r"-0.75", r"\frac{3}{-4}", True),
    (r"1", r"1.0", True),
    (r"10^{-20}", r"10^{-21}", False),
    (r"123456789012345678", r"123456789012345679", False),
    # Values of which every digit cancels.
    (r"0", r"1-1", True),
    (r"0", r"\sqrt{2}-\sqrt{2}", True),
    (r"0", r"10^{-30}", False),
    (r"0", r"1-1+10^{-30}", False),
    (r"5", r"1-1", False),
    # Products without a sign; math-verify's parser reads a mixed number in the first three.
    (r"6", r"2(3)", True),
    (r"5", r"2(3)", False),
    (r"6", r"(2)(3)", True),
    (r"1", r"(2)\frac{1}{2}", True),
    (r"239", r"\frac{2(239)}{2}", True),
    (r"30", r"5(2)(3)", True),
    (r"n", r"\frac{2n}{2}", True),
    (r"n", r"\frac{2n}{3}", False),
    # Names, units, percent.
    (r"7", r"x=7", True),
    (r"x=7", r"7", True),
    (r"x=7", r"y=7", False),
    (r"7", r"5=7", False),
    (r"4", r"2+2=4", True),
    (r"y=2x+1", r"2x+1", True),
    (r"f(x)=x^2", r"f(x)=x\cdot x", True),
    (r"7", r"7\text{ cm}", True),
    (r"7\text{ cm}", r"7 cm", True),
    (r"7\text{ cm}", r"7\text{ m}", NOT_COMPARABLE),
    (r"7", r"7x", False),
    (r"7", r"7 apples", NOT_COMPARABLE),
    (r"18", r"18 dollars", True),
    (r"50\%", r"50", True),
    (r"0.5", r"50\%", True),
    (r"5", r"50\%", False),
    (r"90^\circ", r"90", True),
    (r"1010_2", r"1010", True),
    (r"12_5", r"12_7", NOT_COMPARABLE),
    # Tuples, intervals, sets, lists.
    (r"(0,1)", r"(0,1.0)", True),
    (r"(1,2)", r"(2,1)", False),
    (r"(3,-2)", r"(5,1)", False),
    (r"[0,1]", r"(0,1)", False),
    (r"[0,1)", r"[0, 1.0)", True),
    (r"\left(\frac12,3\right)", r"(0.5,3)", True),
    (r"1,2", r"2,1", True),
    (r"1,2", r"1,2,3", False),
    (r"1,1,2", r"1,2,2", False),
    (r"5,6", r"5\text{ and }6", True),
    (r"1 and 19", r"19, 1", True),
    (r"2,-2", r"$-2$ or $2$", True),
    (r"1 and 19", r"1", False),
    (r"\{1,2\}", r"\{2,1\}", True),
    (r"3,-3", r"\pm 3", True),
    (r"2\pm\sqrt{3}", r"2+\sqrt3, 2-\sqrt3", True),
    (r"x=1,y=2", r"y=2,x=1", True),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)", True),
    (r"x<3", r"(-\infty,3)", True),
    (r"x<3", r"x\le3", False),
    (r"1\le x\le2", r"1\leq x\leq 2", True),
    # Expressions.
    (r"x^2+2x+1", r"(x+1)^2", True),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt2}", True),
    (r"2\sqrt{3}", r"\sqrt{12}", True),
    (r"2\sqrt{3}", r"2sqrt(3)", True),
    (r"\frac{x}{2}", r"0.5x", True),
    (r"2\pi", r"6.283185", False),
    (r"2\pi", "2\u03c0", True),
    (r"\binom{5}{2}", r"10", True),
    (r"5!", r"120", True),
    (r"\log_2 8", r"3", True),
    (r"\sin 30^\circ", r"\frac12", True),
    (r"3+4i", r"4i+3", True),
    (r"2x+y=3", r"y=3-2x", True),
    (r"2x+y=3", r"4x+2y=6", True),
    (r"x^2+y^2=4", r"2x^2+2y^2-8=0", True),
    (r"x^2=-1", r"x^2=-2", NOT_COMPARABLE),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2.0\end{pmatrix}", True),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}", False),
    (r"ab", r"ba", True),
    # Case and words.
    (r"X", r"x", False),
    (r"\Delta", r"\delta", False),
    (r"A", r"(A)", True),
    (r"A", r"\text{(A)}", True),
    (r"A", r"B", False),
    (r"Monday", r"\text{Monday}", True),
    (r"Yes", r"yes", False),
    (r"even", r"odd", False),
    (r"listen", r"silent", NOT_COMPARABLE),
    (r"seven", r"7", NOT_COMPARABLE),
    # What cannot be read or computed.
    (r"9", r"9^{9^{9^9}}", NOT_COMPARABLE),
    (r"\frac{1}{2}", r"\frac{1}{2", None),
    (r"5", r"5 @ 7", NOT_COMPARABLE),
    (r"y", r"y'", NOT_COMPARABLE),
    (r"x+3\frac12", r"x+3 1/2", NOT_COMPARABLE),
]


def task_for(path: Path, gold: object, **options: object) -> tuple[JsonlTask, Prompt]:
    path.write_text(json.dumps({"question": "q", "answer": gold}) + "\n", encoding="utf-8")
    task = JsonlTask(path=str(path), extract="boxed", **options)  # type: ignore[arg-type]
    return task, task.train_prompts()[0]


def judged(path: Path, gold: object, answer: str, **options: object) -> Verdict:
    task, prompt = task_for(path, gold, **options)
    return task.verify(prompt, f"so it is \\boxed{{{answer}}}")


@pytest.mark.parametrize(("gold", "answer", "right"), PAIRS)
def test_pair(tmp_path: Path, gold: str, answer: str, right: bool | None) -> None:
    verdict = judged(tmp_path / "q.jsonl", gold, answer)
    assert verdict.reward == (1.0 if right else 0.0)
    if verdict.answer is not None:
        assert verdict.comparable == (right is not None)
    assert (verdict.solution is None) != bool(right)


@pytest.mark.parametrize("gold", sorted({gold for gold, _, _ in PAIRS}))
def test_every_right_answer_is_right(tmp_path: Path, gold: str) -> None:
    assert judged(tmp_path / "q.jsonl", gold, gold).reward == 1.0


def test_all_right_spellings_vote_as_one(tmp_path: Path) -> None:
    answers = {judged(tmp_path / "q.jsonl", r"\frac{x}{2}", text).answer for text in ("0.5x", r"\frac12x", "x/2")}
    assert answers == {r"\frac{x}{2}"}


def test_case_matters_unless_the_task_says_otherwise(tmp_path: Path) -> None:
    for gold, answer in (("Yes", "YES"), ("X", "x"), (r"2\Delta X", r"2\Delta x")):
        assert judged(tmp_path / "q.jsonl", gold, answer).reward == 0.0
        assert judged(tmp_path / "q.jsonl", gold, answer, ignore_case=True).reward == 1.0
    assert judged(tmp_path / "q.jsonl", r"\Delta", r"\delta", ignore_case=True).reward == 0.0


def test_exact_match_compares_text(tmp_path: Path) -> None:
    assert judged(tmp_path / "q.jsonl", "1/2", "0.5", match="exact").reward == 0.0
    assert judged(tmp_path / "q.jsonl", r"\frac{1}{2}", r"$\dfrac12$", match="exact").reward == 1.0


HOSTILE = [
    "9^{9^{9^9}}",
    "9**9**9**9",
    "(" * 100 + "1" + ")" * 100,
    "\\frac{" * 60 + "1" + "}{2}" * 60,
    "x^{" * 60 + "x" + "}" * 60,
    "1+" * 140 + "1",
    "((10!)!)!",
    r"\binom{10^9}{10^8}",
    r"\int_0^{\infty} e^{-x^x} \sin(x^7) dx",
    r"\sum_{k=1}^{10^{10}} \frac{1}{k}",
    r"(x+y+z+w)^{200}",
    "9" * 100_000,
    "1," * 50_000,
    "1e999999999",
    "__import__('os').system('touch owned')",
    r"\operatorname{exec}(x)",
    "\x00\ud800\u202e\n\r\x1b[2J",
    "{}{0.__class__}%s%n",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_answer_takes_for_ever_or_is_paid(tmp_path: Path, text: str) -> None:
    for gold in ("3", "x^2+1"):
        started = time.perf_counter()
        assert judged(tmp_path / "q.jsonl", gold, text).reward == 0.0
        assert time.perf_counter() - started < 100, "seconds of processor time, on a busy machine"


ALPHABET = st.sampled_from(
    [*"0123456789xynXe+-*/^_=<>(){}[],;.! %'", r"\frac", r"\sqrt", r"\pi", r"\text{", r"\{", "^{"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ALPHABET, max_size=12).map("".join), st.sampled_from(["7", "x+1", "(0,1)", "1,2", "Yes", "x=7"]))
def test_no_text_raises_and_equal_text_is_right(tmp_path_factory: pytest.TempPathFactory, text: str, gold: str) -> None:
    task, prompt = task_for(tmp_path_factory.mktemp("fuzz") / "q.jsonl", gold)
    verdict = task.verify(prompt, f"\\boxed{{{text}}}")
    assert verdict.reward in (0.0, 1.0)
    assert task.verify(prompt, f"\\boxed{{{gold}}}").reward == 1.0


@settings(max_examples=60, deadline=None)
@given(st.fractions(), st.fractions(), st.integers(0, 3))
def test_numbers_are_right_if_and_only_if_they_are_equal(
    tmp_path_factory: pytest.TempPathFactory, gold: object, other: object, style: int
) -> None:
    from fractions import Fraction

    assert isinstance(gold, Fraction) and isinstance(other, Fraction)
    task, prompt = task_for(tmp_path_factory.mktemp("fuzz") / "q.jsonl", str(gold))
    for value in (gold, other):
        sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
        whole, rest = divmod(top, bottom)
        spellings = [f"{value}", f"{sign}\\frac{{{top}}}{{{bottom}}}", f"${sign}\\dfrac{{{top}}}{{{bottom}}}$."]
        spellings.append(f"{sign}{whole}\\frac{{{rest}}}{{{bottom}}}" if whole and rest else spellings[1])
        verdict = task.verify(prompt, f"\\boxed{{{spellings[style]}}}")
        assert verdict.comparable and (verdict.reward == 1.0) == (value == gold)
