"""IF-Eval's instructions: what follows each kind and what does not, rows that cannot be, and loose revisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.tasks.instructions import InstructionTask
from trainer.tasks.verifiers.instructions import KINDS, LANGUAGE, Instructions, revised

LESS, LEAST = "less than", "at least"
CASES: dict[str, list[tuple[dict[str, Any], str, str]]] = {
    "keywords:existence": [({"keywords": ["Rome", "a.b"]}, "rome and a.b", "rome and acb")],
    "keywords:frequency": [
        ({"keyword": "go", "frequency": 2, "relation": LEAST}, "Go, going", "go"),
        ({"keyword": "go", "frequency": 2, "relation": LESS}, "go", "go go"),
    ],
    "keywords:forbidden_words": [({"forbidden_words": ["cat"]}, "a category", "a Cat.")],
    "keywords:letter_frequency": [({"letter": "q", "let_frequency": 2, "let_relation": LEAST}, "Qq", "q")],
    "length_constraints:number_sentences": [
        ({"num_sentences": 3, "relation": LEAST}, 'One. "Two!" Three', "One. Two"),
        ({"num_sentences": 2, "relation": LESS}, "It is 3.5 long.", "One. Two."),
    ],
    "length_constraints:number_paragraphs": [({"num_paragraphs": 2}, "a\n***\nb", "a\n***\n***\nb")],
    "length_constraints:number_words": [({"num_words": 3, "relation": LEAST}, "a b, c", "a b")],
    "length_constraints:nth_paragraph_first_word": [
        ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "so"}, 'a\n\n"So, b', "a\n\nb"),
        ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "b"}, "a\n\nb", "a\n\nb\n\nc"),
    ],
    "detectable_content:number_placeholders": [({"num_placeholders": 2}, "[name] at [place]", "[name]")],
    "detectable_content:postscript": [
        ({"postscript_marker": "P.S."}, "Bye.\nP. S. more", "Bye. PPS"),
        ({"postscript_marker": "P.P.S"}, "P.P.S more", "P.S. more"),
    ],
    "detectable_format:number_bullet_lists": [({"num_bullets": 2}, "* a\n- b\n**bold**", "* a\n- b\n- c")],
    "detectable_format:constrained_response": [({}, "Well. My answer is maybe.", "maybe")],
    "detectable_format:number_highlighted_sections": [({"num_highlights": 2}, "*a* and *b*", "*a* and * *")],
    "detectable_format:multiple_sections": [
        ({"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1 a SECTION 2 b", "SECTION a SECTION 2")
    ],
    "detectable_format:json_format": [({}, '```json\n{"a": [1]}\n```', "{a: 1}"), ({}, "[1]", "```json\n[1\n```")],
    "detectable_format:title": [({}, "<<A title>>\ntext", "<< >> text")],
    "combination:two_responses": [({}, "a\n******\nb", "a ****** a"), ({}, "a******b******", "a******b******c")],
    "combination:repeat_prompt": [({"prompt_to_repeat": "Say it. "}, " say it. Done", "Done: say it.")],
    "startend:end_checker": [({"end_phrase": "The end."}, 'a. THE END."\n', "The end. a")],
    "startend:quotation": [({}, ' "a b"\n', '"'), ({}, '""', '"a" b')],
    "change_case:capital_word_frequency": [
        ({"capital_frequency": 2, "capital_relation": LEAST}, "NO and YES", "No and YES")
    ],
    "change_case:english_capital": [({}, "ALL OF IT, 3!", "ALL of IT")],
    "change_case:english_lowercase": [({}, "all of it, 3!", "all Of it")],
    "punctuation:no_comma": [({}, "a; b", "a, b")],
}
FLAT = [(name, *case) for name, cases in CASES.items() for case in cases]


def row(name: str = "punctuation:no_comma", **arguments: Any) -> dict[str, Any]:
    return {"prompt": f"Do {name}.", "instruction_id_list": [name], "kwargs": [arguments | {"unused": None}]}


def written(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return str(path)


def test_every_kind_has_a_case() -> None:
    assert len(KINDS) == 25 and set(CASES) == set(KINDS) - {LANGUAGE}


@pytest.mark.parametrize(("name", "arguments", "follows", "fails"), FLAT)
def test_a_kind_tells_apart(name: str, arguments: dict[str, Any], follows: str, fails: str) -> None:
    assert KINDS[name](follows, arguments)
    assert not KINDS[name](fails, arguments)


def test_language_is_told_by_langdetect() -> None:
    pytest.importorskip("langdetect", reason="the package langdetect is optional")
    assert KINDS[LANGUAGE]("Das ist ein ganz gewöhnlicher deutscher Satz.", {"language": "de"})
    assert not KINDS[LANGUAGE]("This is quite an ordinary English sentence.", {"language": "de"})


def test_the_share_that_is_followed_and_loose_revisions() -> None:
    data = {
        "instructions": ["punctuation:no_comma", "change_case:english_lowercase", "startend:end_checker"],
        "arguments": [{}, {}, {"end_phrase": "the end"}],
    }
    assert Instructions().score("a b the end", data) == 1
    assert Instructions().score("a, b the end", data) == pytest.approx(2 / 3)
    # Without its first line the last response follows all of them.
    assert Instructions().score("Sure, I do:\na b the end", data) == pytest.approx(1 / 3)
    assert Instructions(loose=True).score("Sure, I do:\na b the end", data) == 1
    assert Instructions(loose=True).score("", data) == 0
    assert revised("a\n*b*\nc") == ["a\n*b*\nc", "a\nb\nc", "*b*\nc", "b\nc", "a\n*b*", "a\nb", "*b*", "b"]


def test_rows_are_prompts_and_a_response_that_follows_all_is_correct(tmp_path: Path) -> None:
    both = row("keywords:existence", keywords=["x"])
    both["instruction_id_list"].append("punctuation:no_comma")
    both["kwargs"].append({})
    task = InstructionTask(path=written(tmp_path / "a.jsonl", row(), both, row()), heldout_every=3)
    (first, _), (held,) = task.train_prompts(), task.suites()["heldout"]
    assert first.text == "Do keywords:existence." and held.text == "Do punctuation:no_comma."
    verdicts = task.verify_all([(first, "x"), (first, "x, y"), (first, "y, z")])
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.25, 0.0]
    assert verdicts[0].solution == "x" and verdicts[1].solution is None
    assert len(task.notes()) == 1 and "not trained on" in task.notes()[0]


def test_rows_that_ask_for_a_language_are_left_out_without_langdetect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = written(tmp_path / "a.jsonl", row(), row(LANGUAGE, language="de"), row())
    task = InstructionTask(path=path, heldout_every=1)
    assert len(task.suites()["heldout"]) == 2
    assert task.notes() == ["task ifeval: 1 of 3 rows ask for a language and are left out: install langdetect"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "is empty; give a file with prompts"),
        ([[1]], "a.jsonl:1 is no JSON object; mend the file"),
        ([row() | {"prompt": " "}], "has no text in column 'prompt' (it has prompt, instruction_id_list, kwargs)"),
        (
            [row(), row() | {"instruction_id_list": []}],
            "a.jsonl:2 has no list of names in column 'instruction_id_list'",
        ),
        ([row() | {"kwargs": []}], "has not one mapping for each instruction in column 'kwargs'"),
        ([row("punctuation:no_coma")], "names the instruction 'punctuation:no_coma', which is none of IF-Eval's"),
    ],
)
def test_rows_that_cannot_be_used_are_a_sentence(rows: list[Any], sentence: str, tmp_path: Path) -> None:
    task = InstructionTask(path=written(tmp_path / "a.jsonl", *rows))
    with pytest.raises(ValueError, match="task ifeval") as refused:
        task.suites()
    assert sentence in str(refused.value)
