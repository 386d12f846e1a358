"""Every row of a JSONL file is looked at before anything is queued: refused or left out, with file, line and counts."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from trainer.batch.types import Prompt
from trainer.tasks.jsonl import JsonlTask
from trainer.tasks.rows import sift

GOOD = '{"question": "1 + 1?", "answer": "2"}'

BAD = {
    "not json": "not a JSON object",
    "[1]": "not a JSON object",
    "3": "not a JSON object",
    "[" * 100_000: "not a JSON object",
    '{"question": "q", "answer": ' + "9" * 5000 + "}": "not a JSON object",
    '{"question": "q"}': "no field 'answer'",
    '{"answer": "1"}': "no field 'question'",
    '{"question": "q", "answer": null}': "answer is null, not text",
    '{"question": "q", "answer": true}': "answer is true or false, not text",
    '{"question": "q", "answer": ["1"]}': "answer is a list, not text",
    '{"question": "q", "answer": {"value": 1}}': "answer is an object, not text",
    '{"question": "q", "answer": NaN}': "answer is not finite",
    '{"question": "q", "answer": ""}': "answer is empty",
    '{"question": "q", "answer": "####"}': "answer holds nothing to compare with",
    '{"question": "q", "answer": "\\\\boxed{}"}': "answer holds nothing to compare with",
    '{"question": "q", "answer": "\\\\frac{1}{2"}': "answer has braces that do not close",
    '{"question": "q", "answer": "' + "x" * 1001 + '"}': "answer has more than 1000 characters",
    '{"question": "q", "answer": "\\ud800"}': "answer holds half a character",
    '{"question": "\\udfff", "answer": "1"}': "question holds half a character",
    '{"question": " ", "answer": "1"}': "question is empty",
    '{"question": 7, "answer": "1"}': "question is a number, not text",
    '{"question": [{"role": "user", "content": "q"}], "answer": "1"}': "question is a list of messages, not text",
    '{"question": "q", "answer": "1", "solution": ["a"]}': "solution is a list, not text",
    '{"question": "1 + 1?", "answer": "3"}': "question occurs before with another answer",
}


def write(path: Path, *lines: str) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("line", "reason"), BAD.items(), ids=range(len(BAD)))
def test_a_bad_row_is_refused_with_file_line_and_counts(tmp_path: Path, line: str, reason: str) -> None:
    file = write(tmp_path / "q.jsonl", GOOD, "", line)
    with pytest.raises(ValueError) as refused:
        JsonlTask(path=file).train_prompts()
    sentence = str(refused.value)
    assert sentence.startswith(f"task math: {file}: 1 of 2 rows cannot be used: {reason}")
    assert "(line 3)" in sentence and sentence.endswith("task.bad_rows=drop") and "\n" not in sentence


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_or_left_out_and_said(tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "q.jsonl", GOOD, line)
    task = JsonlTask(path=file, bad_rows="drop")
    with caplog.at_level(logging.WARNING):
        assert [prompt.data["answer"] for prompt in task.train_prompts()] == ["2"]
    assert "1 of 2 rows cannot be used" in caplog.text
    (note,) = task.notes()
    assert f"{file}: 1 of 2 rows cannot be used" in note and note.endswith("left out (task.bad_rows=drop)")


def test_one_sentence_for_all_bad_rows(tmp_path: Path) -> None:
    empty = '{"question": "", "answer": "1"}'
    file = write(tmp_path / "q.jsonl", *[empty] * 7, GOOD, '{"question": "q", "answer": null}')
    with pytest.raises(ValueError) as refused:
        JsonlTask(path=file).train_prompts()
    assert (
        "8 of 9 rows cannot be used: question is empty (lines 1, 2, 3, 4, 5 and 2 more), answer is null, not text "
        "(line 9); mend them" in str(refused.value)
    )


def test_a_file_without_a_usable_row_is_refused_even_if_rows_are_dropped(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", '{"question": "q", "answer": null}')
    with pytest.raises(ValueError, match="holds no usable question"):
        JsonlTask(path=file, bad_rows="drop").train_prompts()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            '{"question": "q\u00e9", "answer": "1"}\n'.encode("latin-1"),
            r"line 2 is not UTF-8 \(byte 0xe9 at position 16\)",
        ),
        ((GOOD + "\n").encode("utf-16"), r"line 2 is not UTF-8 \(byte 0xff"),
    ],
)
@pytest.mark.parametrize("bad_rows", ["refuse", "drop"])
def test_another_encoding_is_named_with_file_and_line(tmp_path: Path, data: bytes, words: str, bad_rows: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(GOOD.encode() + b"\n" + data)
    with pytest.raises(ValueError, match=rf"q\.jsonl, {words}.*save the file as UTF-8"):
        JsonlTask(path=str(tmp_path / "q.jsonl"), bad_rows=bad_rows).train_prompts()  # type: ignore[arg-type]


def test_a_byte_order_mark_and_line_separators_within_text_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(
        b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n" + '{"question": "a\u2028b", "answer": "3"}\n'.encode()
    )
    prompts = JsonlTask(path=str(tmp_path / "q.jsonl")).train_prompts()
    assert [prompt.data["answer"] for prompt in prompts] == ["2", "3"]


@pytest.mark.parametrize(("answer", "kept"), [(42, "42"), (0.5, "1/2"), (1e22, "1" + "0" * 22), (-3, "-3")])
def test_answers_may_be_numbers(tmp_path: Path, answer: object, kept: str) -> None:
    file = write(tmp_path / "q.jsonl", json.dumps({"question": "q", "answer": answer}))
    assert JsonlTask(path=file).train_prompts()[0].data["answer"] == kept


def test_null_pays_nobody(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", GOOD, '{"question": "q", "answer": null}')
    task = JsonlTask(path=file, bad_rows="drop")
    assert all(task.verify(prompt, "\\boxed{None}").reward == 0.0 for prompt in task.train_prompts())


def test_a_word_is_no_answer_where_numbers_are_looked_for(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", '{"question": "q", "answer": "Monday"}')
    with pytest.raises(ValueError, match=r"answer is no number, as task\.extract=number needs \(line 1\)"):
        JsonlTask(path=file, extract="number").train_prompts()
    assert len(JsonlTask(path=file).train_prompts()) == 1


def test_long_answers_up_to_the_limit_can_be_right(tmp_path: Path) -> None:
    gold = "x" + "+x" * 400
    file = write(tmp_path / "q.jsonl", json.dumps({"question": "q", "answer": gold}))
    task = JsonlTask(path=file)
    assert task.verify(task.train_prompts()[0], f"\\boxed{{{gold}}}").reward == 1.0


def test_questions_that_occur_twice_and_those_trained_on_are_counted(tmp_path: Path) -> None:
    other = '{"question": "2 + 2?", "answer": "4"}'
    train, heldout = write(tmp_path / "train.jsonl", GOOD, GOOD), write(tmp_path / "test.jsonl", other, GOOD)
    task = JsonlTask(path=train, suite_paths={"heldout": heldout})
    assert task.notes() == [
        f"task math: {train}: 1 of 2 questions occur before (line 2)",
        f"task math: {heldout}: 1 of 2 questions are trained on (line 2)",
    ]
    assert JsonlTask(path=train, suite_paths={"again": train}).notes() == [task.notes()[0]]


def test_a_further_condition_is_refused_or_left_out_with_file_and_line(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", GOOD, '{"question": "long", "answer": "1"}')
    prompts = JsonlTask(path=file).train_prompts()

    def too_long(prompt: Prompt) -> str | None:
        return "question takes 5000 tokens, the context holds 4096" if "long" in prompt.text else None

    with pytest.raises(ValueError, match=r"1 of 2 rows cannot be used: question takes 5000 tokens.* \(line 2\); mend"):
        sift(prompts, too_long, "refuse")
    assert sift(prompts, too_long, "drop") == prompts[:1]
    with pytest.raises(ValueError, match="1 of 1 rows"):
        sift(prompts[1:], too_long, "drop")
