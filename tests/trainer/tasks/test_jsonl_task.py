"""The JSONL task and its exact answer matching, on small files and hostile text."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.tasks.answers import as_fraction, balanced, enclosed, last_boxed, last_number, spelled
from trainer.tasks.base import Task
from trainer.tasks.jsonl import JsonlTask


def write(path: Path, records: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "train.jsonl", [{"question": f"What is {n}/2?", "answer": f"{n}/2"} for n in range(1, 9)])


def test_prompts_come_from_the_file_and_braces_survive(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": "Find \\frac{1}{2}", "answer": "0.5"}])
    task = JsonlTask(path=path, suite_paths={"heldout": path}, prompt_template="Q {question} \\boxed{}")
    assert isinstance(task, Task)
    (prompt,) = task.train_prompts()
    assert (prompt.id, prompt.text) == ("train-0", "Q Find \\frac{1}{2} \\boxed{}")
    assert prompt.data == {"answer": "1/2", "where": f"{path}:1"}
    assert [p.id for p in task.suites()["heldout"]] == ["heldout-0"]


def test_reference_after_hashes_or_boxed_and_other_fields(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [{"q": "1", "a": "so\n#### 1,234"}, {"q": "2", "a": "\\boxed{\\frac{6}{4}}"}]
    path = write(tmp_path / "a.jsonl", records)
    task = JsonlTask(path=path, question_field="q", answer_field="a")
    assert [prompt.data["answer"] for prompt in task.train_prompts()] == ["1234", "3/2"]


def test_a_worked_answer_is_carried_along_where_a_line_has_one(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"question": "2 + 2?", "answer": "4", "solution": "2 + 2 = \\boxed{4}"},
        {"question": "3 + 3?", "answer": "so it is\n#### 6", "solution": None},
        {"question": "4 + 4?", "answer": "8"},
    ]
    path = write(tmp_path / "a.jsonl", records)
    task = JsonlTask(path=path)
    first, second, third = task.train_prompts()
    assert task.expert(first) == "2 + 2 = \\boxed{4}" and task.verify(first, task.expert(first) or "").reward == 1.0
    assert task.expert(second) is None and task.expert(third) is None
    assert third.data == {"answer": "8", "where": f"{path}:3"}
    # In files like GSM8K's the answer is the worked one.
    other = JsonlTask(path=path, solution_field="answer")
    assert other.expert(other.train_prompts()[1]) == "so it is\n#### 6"


@pytest.mark.parametrize(
    ("text", "reward", "answer"),
    [
        ("so \\boxed{0.5}", 1.0, "1/2"),
        ("first \\boxed{3}, no: \\boxed{\\frac{1}{2}}", 1.0, "1/2"),
        ("\\boxed{-\\frac{1}{2}}", 0.0, "-1/2"),
        ("it is 2/4", 1.0, "1/2"),
        ("it is 0.50.", 1.0, "1/2"),
        ("\\boxed{2} and then 0.5", 0.0, "2"),  # the box wins over a later number
        ("\\boxed{x}", 0.0, "x"),
        ("no number here", 0.0, None),
        ("\\boxed{}", 0.0, None),
        ("\\boxed{0.5", 1.0, "1/2"),  # never closed: the last number counts
    ],
)
def test_verify(file: str, text: str, reward: float, answer: str | None) -> None:
    task = JsonlTask(path=file)
    verdict = task.verify(task.train_prompts()[0], text)
    assert (verdict.reward, verdict.answer) == (reward, answer)
    assert (verdict.solution is None) == (reward == 0.0)


def test_extract_and_match_options(file: str) -> None:
    prompt = JsonlTask(path=file).train_prompts()[0]
    assert JsonlTask(path=file, extract="boxed").verify(prompt, "it is 1/2").answer is None
    assert JsonlTask(path=file, extract="number").verify(prompt, "1/2, not \\boxed{3}").answer == "3"
    exact = JsonlTask(path=file, match="exact")
    assert exact.verify(exact.train_prompts()[0], "\\boxed{0.5}").reward == 0.0
    assert exact.verify(exact.train_prompts()[0], "\\boxed{$1 / 2$}").reward == 1.0


def test_num_prompts_is_a_nested_fixed_subset(file: str) -> None:
    few, more = (JsonlTask(path=file, num_prompts=n).train_prompts() for n in (3, 6))
    assert few == more[:3] == JsonlTask(path=file, num_prompts=3).train_prompts()
    assert len({prompt.id for prompt in more}) == 6


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", Fraction(2469, 2)),
        ("-7", Fraction(-7)),
        ("+3", Fraction(3)),
        ("$12$", Fraction(12)),
        ("50\\%", None),  # a percent sign is a unit: see compare.py
        ("3 1/4", Fraction(13, 4)),
        ("3\\frac14", Fraction(13, 4)),
        ("3\\frac{5}{4}", None),
        (".5", Fraction(1, 2)),
        ("1{,}000", Fraction(1000)),
        ("\u22123", Fraction(-3)),
        ("3\\times10^3", Fraction(3000)),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("\\dfrac{3}{6}", Fraction(1, 2)),
        ("-\\frac{-1}{2}", Fraction(1, 2)),
        ("1.5/0.5", Fraction(3)),
        ("5.", Fraction(5)),
        *(
            (unreadable, None)
            for unreadable in ("1/0", "\\frac{1}{0}", "1e9", "1,23", "\u0663", "", "nan", "2^3", "1" * 41)
        ),
    ],
)
def test_as_fraction(text: str, value: Fraction | None) -> None:
    assert as_fraction(spelled(text)) == value


def test_readers() -> None:
    assert last_boxed("a \\boxed{1} b \\boxed{\\frac{1}{2}} c") == "\\frac{1}{2}"
    assert last_boxed("\\boxed{1") is None and last_boxed("boxed{1}") is None
    assert last_boxed("\\boxed {\\{1,2\\}}") == "\\{1,2\\}"
    numbers = {"from 3 to 1,250.75 m": "1,250.75", "none": None, "5-3": "3", "is -3.": "-3", "take 3 1/4 cups": "3 1/4"}
    numbers |= {"is .5": ".5", "50%": "50%", "\u22127": "\u22127"}
    assert {text: last_number(text) for text in numbers} == numbers
    assert spelled("\\left( 1 , 2 \\right)") == spelled("(1,2)") and spelled("\\text{ Yes }.") == "Yes"
    assert enclosed("(1,2]") == "(]" and enclosed("(1)(2)") == "" and balanced("{{}}") and not balanced("}{")


@given(st.text(max_size=300) | st.text(alphabet="\\boxed{}0123456789,./-$ frac", max_size=300))
def test_no_text_raises(text: str) -> None:
    as_fraction(text)
    for reader in (last_boxed, last_number, spelled, enclosed, balanced):
        reader(text)


def test_hostile_length_is_linear() -> None:
    texts = ["\\boxed{" * 200_000, "{" * 2_000_000, "1" * 2_000_000, "1," * 1_000_000]
    texts.append("\\boxed{" + "9" * 2_000_000 + "}")
    started = time.perf_counter()
    for text in texts:
        for reader in (last_boxed, last_number, spelled, as_fraction):
            reader(text)
    assert time.perf_counter() - started < 5.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": None}, "path is null; set task.path"),
        ({"path": "missing.jsonl"}, "missing.jsonl is not a file"),
        ({"suite_paths": {"heldout": "gone.jsonl"}}, "gone.jsonl is not a file"),
        ({"match": "sympy"}, "match is 'sympy'"),
        ({"bad_rows": "ignore"}, "bad_rows is 'ignore'; set it to one of refuse, drop"),
        ({"extract": "line"}, "extract is 'line'"),
        ({"prompt_template": "hello"}, "lacks {question}"),
        ({"num_prompts": 0}, "num_prompts is 0"),
    ],
)
def test_bad_options_are_one_sentence(file: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("{", r"\{").replace("}", r"\}")):
        JsonlTask(**({"path": file} | options))  # type: ignore[arg-type]


def test_too_many_prompts_and_empty_file(file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_prompts is 9, but .* holds 8"):
        JsonlTask(path=file, num_prompts=9).train_prompts()
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no usable question"):
        JsonlTask(path=str(tmp_path / "empty.jsonl")).train_prompts()


@pytest.mark.parametrize("name", ["a/b", "", "held out", "..", "é"])
def test_a_suite_that_no_metric_could_be_named_after_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    with pytest.raises(ValueError, match="suite_paths names a suite"):
        JsonlTask(path=str(file), suite_paths={name: str(file)})


@pytest.mark.parametrize(
    ("settings", "text", "reward"),
    [
        ({"extract": "tags"}, "<think>1</think><answer>0.5</answer>", 1.0),
        ({"extract": "tags"}, "<answer>3</answer> or <answer> 1/2 </answer>.", 1.0),
        ({"extract": "tags"}, "\\boxed{0.5}", 0.0),
        ({"extract": "tags"}, "</answer><answer>0.5", 0.0),
        ({"extract": "marker"}, "Answer: 3\nno, answer: $\\frac12$\nbye", 1.0),
        ({"extract": "marker"}, "it is 0.5", 0.0),
        ({"extract": "marker", "answer_marker": "####"}, "so\n#### 0.5", 1.0),
    ],
)
def test_answers_between_tags_and_after_a_marker(file: str, settings: dict[str, str], text: str, reward: float) -> None:
    task = JsonlTask(path=file, **settings)  # type: ignore[arg-type]
    assert task.verify(task.train_prompts()[0], text).reward == reward


@pytest.mark.parametrize(
    ("settings", "asks"),
    [({}, "\\boxed{}"), ({"extract": "tags"}, "<answer>"), ({"extract": "marker", "answer_marker": "####"}, "####")],
)
def test_without_a_template_the_prompt_asks_for_what_is_extracted(
    file: str, settings: dict[str, str], asks: str
) -> None:
    prompt = JsonlTask(path=file, **settings).train_prompts()[0]  # type: ignore[arg-type]
    assert prompt.text.startswith("What is 1/2?\n") and asks in prompt.text and prompt.text.endswith("\n")


def test_examples_are_the_first_rows_and_not_trained_on(file: str, tmp_path: Path) -> None:
    task = JsonlTask(path=file, shots=2, prompt_template="Q: {question}\n", suite_paths={"same": file})
    prompts = task.train_prompts()
    assert len(prompts) == 6 and prompts[0].text == "Q: What is 3/2?\n"
    examples = (("Q: What is 1/2?\n", "\\boxed{1/2}"), ("Q: What is 2/2?\n", "\\boxed{2/2}"))
    assert prompts[0].examples == examples == task.suites()["same"][0].examples
    worked = write(tmp_path / "worked.jsonl", [{"question": "1?", "answer": "1", "solution": "It is \\boxed{1}."}])
    other = JsonlTask(path=file, shots=1, shots_path=worked, extract="tags")
    assert len(other.train_prompts()) == 8 and other.train_prompts()[0].examples[0][1] == "It is \\boxed{1}."
    with pytest.raises(ValueError, match=r"shots is 2, but .*worked.jsonl holds 1 questions"):
        JsonlTask(path=file, shots=2, shots_path=worked).train_prompts()
    with pytest.raises(ValueError, match=r"all 8 questions of .* are examples"):
        JsonlTask(path=file, shots=8).train_prompts()


@pytest.mark.parametrize(("repeats", "count"), [("keep", 3), ("drop", 2)])
def test_repeated_questions_are_kept_or_dropped_or_refused(tmp_path: Path, repeats: str, count: int) -> None:
    row: dict[str, object] = {"question": "1?", "answer": "1"}
    path = write(tmp_path / "a.jsonl", [row, {"question": "2?", "answer": "2"}, row])
    assert len(JsonlTask(path=path, repeats=repeats).train_prompts()) == count  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"1 of 3 questions occur before; leave them out with task.repeats=drop"):
        JsonlTask(path=path, repeats="refuse").train_prompts()


def test_a_suite_may_have_columns_and_a_prompt_of_its_own(file: str, tmp_path: Path) -> None:
    suite = write(tmp_path / "s.jsonl", [{"problem": "P", "result": "1"}])
    own = {"question_field": "problem", "answer_field": "result", "prompt_template": "<{question}>"}
    task = JsonlTask(path=file, suite_paths={"s": suite}, suite_settings={"s": own})
    (prompt,) = task.suites()["s"]
    assert (prompt.text, prompt.data["answer"]) == ("<P>", "1")
    for bad in ({"t": own}, {"s": {"extract": "boxed"}}):
        with pytest.raises(ValueError, match="give question_field, answer_field, prompt_template for a suite of"):
            JsonlTask(path=file, suite_paths={"s": suite}, suite_settings=bad)


@pytest.mark.parametrize(
    ("settings", "gold", "text", "reward"),
    [
        ({"match": "numeric"}, "3.14", "\\boxed{3.14}", 1.0),
        ({"match": "numeric"}, "3.14", "\\boxed{3.141}", 0.0),
        ({"match": "numeric", "tolerance": 0.001}, "3.14", "\\boxed{3.141}", 1.0),  # off by 0.0003 of it
        ({"match": "numeric", "tolerance": 0.001}, "-200", "it is -200.3", 0.0),
        ({"match": "numeric"}, "7", "\\boxed{7\\text{ cm}}", 1.0),
        ({"match": "numeric"}, "7", "\\boxed{x}", 0.0),
        ({"match": "choice"}, "B", "\\boxed{(b)}", 1.0),
        ({"match": "choice"}, "(B) 42", "\\boxed{\\text{B}}", 1.0),
        ({"match": "choice", "extract": "marker"}, "B", "Answer: B. because", 1.0),
        ({"match": "choice"}, "B", "\\boxed{Because}", 0.0),
        ({"match": "choice"}, "B", "\\boxed{C}", 0.0),
    ],
)
def test_numbers_and_choices(tmp_path: Path, settings: dict[str, object], gold: str, text: str, reward: float) -> None:
    task = JsonlTask(path=write(tmp_path / "a.jsonl", [{"question": "q", "answer": gold}]), **settings)  # type: ignore[arg-type]
    assert task.verify(task.train_prompts()[0], text).reward == reward


@pytest.mark.parametrize(
    ("match", "answer", "reason"),
    [("numeric", "x", "is no number, as task.match=numeric"), ("choice", "Because", "holds nothing to compare with")],
)
def test_an_answer_that_can_never_be_given_is_refused(tmp_path: Path, match: str, answer: str, reason: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": "q", "answer": answer}])
    with pytest.raises(ValueError, match=reason):
        JsonlTask(path=path, match=match).train_prompts()  # type: ignore[arg-type]
