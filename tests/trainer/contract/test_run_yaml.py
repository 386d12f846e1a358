"""run.yaml: what is written is what is read, by everybody who reads it."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from runs import run_config, write_run

from sweeps.runs import run_folder as runs
from trainer.__main__ import main
from trainer.contract import run_yaml
from trainer.storage.record import RunFolder

NASTY = (
    *("38930e831968", "000000000000", "123456789012", "012345670123", "1e5", "1E5", "1e-4", "1.5", "1_000", "0x1f"),
    *("0o7", "0b1", "12:30", "12:30:00", "2024-01-01", "2024-01-01T00:00:00Z", "on", "Off", "yes", "NO", "y", "N"),
    *("true", "False", "null", "Null", "~", "", " ", "nan", ".nan", ".inf", "-.inf", "inf", "Infinity", "+1", "-1"),
    *(".5", "5.", "1e+3", "<<", "=", "- a", "a: b", "a #b", "#a", "&a", "*a", "!a", "!!int 1", "%a", "@a", "`a`"),
    *("'a'", '"a"', "[a]", "{a: 1}", "---", "...", "? a", "/a/b c", "$HOME", "a\\b", "a" * 99 + " " + "b" * 99),
    *("a\nb", "\n", "\r\n", "\t", " a", "a ", "\x00", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\ufffe"),
    *("日本", "🙂", "\udc80", "🙂\udc80", "\\ud800"),
)  # fmt: skip
"""Strings to which YAML 1.1, YAML 1.2, OmegaConf or a terminal gives a meaning."""

STRINGS = st.one_of(
    st.sampled_from(NASTY), st.text(), st.text(st.characters()), st.from_regex(r"[0-9]+e[0-9]+", fullmatch=True)
)
SCALARS = st.one_of(STRINGS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())
DOCUMENTS = st.dictionaries(
    STRINGS,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3)),
    max_size=4,
)  # fmt: skip


def typed(value: Any) -> Any:
    """``value`` with the type of everything in it: 1, 1.0 and True are equal to Python."""
    if isinstance(value, dict):
        return [(typed(key), typed(item)) for key, item in value.items()]
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


@given(DOCUMENTS)
@example({text: [text, {text: text}] for text in NASTY})
def test_what_is_written_is_what_is_read(document: dict[str, Any]) -> None:
    assert typed(run_yaml.loads(run_yaml.dumps(document))) == typed(document)


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_sweeps_and_the_trainer_read_the_same_string(text: str, tmp_path: Path) -> None:
    document = {
        "signature": text,
        "study": {"name": text, "level": [text]},
        "tracking": {"tags": {text: text}},
        "seed": 1,
    }
    runs.write_run(tmp_path, document)
    assert typed(runs.read_run(tmp_path)) == typed(RunFolder(tmp_path).config()) == typed(document)


def test_every_name_that_a_hash_can_be_is_a_string_to_every_reader() -> None:
    draw = random.Random(0)
    digits = ["".join(draw.choices("0123456789e", weights=[1] * 10 + [2], k=12)) for _ in range(500)]
    for name in digits:
        written = run_yaml.dumps({"signature": name})
        loaded = (run_yaml.loads(written), yaml.safe_load(written), OmegaConf.to_container(OmegaConf.create(written)))
        assert all(found == {"signature": name} for found in loaded), name


def test_other_readers_find_the_same_strings() -> None:
    for text in NASTY:
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            continue  # half a character: libyaml refuses it
        assert yaml.safe_load(run_yaml.dumps({"a": text})) == {"a": text}
        if "\n" not in text:
            assert OmegaConf.to_container(OmegaConf.create(run_yaml.dumps({"a": text}))) == {"a": text}


def test_a_hand_may_write_numbers_and_truths_as_people_do() -> None:
    text = "a: 1e-4\nb: .5\nc: 3\nd: True\ne: ~\nf:\ng: 38930e831968\nh: on\ni: 2024-01-01\nj: 012\n"
    read = {"a": 1e-4, "b": 0.5, "c": 3, "d": True, "e": None, "f": None}
    assert run_yaml.loads(text) == read | {"g": "38930e831968", "h": "on", "i": "2024-01-01", "j": "012"}


def test_a_run_whose_name_looks_like_a_number_trains(tmp_path: Path) -> None:
    """The seed is looked for, not invented: about one name in 400 is digits around one e."""
    changes: dict[str, Any] = {"steps": 0, "evaluation.every": 0}
    names = ((seed, run_config(changes | {"seed": seed})["signature"]) for seed in range(5000))
    seed, name = next(pair for pair in names if re.fullmatch(r"[0-9]+e[0-9]+", pair[1]))
    folder = write_run(tmp_path / name, changes | {"seed": seed})
    assert main([str(folder.path)]) == 0
    status = folder.read_status()
    assert status is not None and status.state == "COMPLETED"
    assert folder.config()["signature"] == runs.read_run(folder.path)["signature"] == name
