"""The countdown task in TinyZero's columns: an exact calculator without evaluation, every number once."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainer.contract.components import build_component
from trainer.contract.paths import ROOT
from trainer.tasks.base import Task
from trainer.tasks.equations import EquationTask, expression

ROWS = [{"target": 98, "nums": [44, 19, 35]}, {"target": 64, "nums": [63, 95, 96]}, {"target": 7, "nums": [3, 4]}]


@pytest.fixture
def task(tmp_path: Path) -> EquationTask:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    node = yaml.safe_load((ROOT / "conf" / "task" / "countdown_3to4.yaml").read_text())
    made: EquationTask = build_component(node | {"path": str(path), "num_heldout": 1}, "task")
    return made


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("8 / 3 / 2", Fraction(4, 3)),  # from the left
        ("7 - 3 - 2", 2),
        ("((2))", 2),
        ("2/(3-3)", None),
        ("2 +", None),
        ("-2", None),
        ("2 ** 3", None),
        ("(1", None),
        ("1)", None),
        ("1 2", None),
        ("x", None),
        ("", None),
        ("\u0662+1", None),
        ("(" * 200, None),
        ("(" * 99 + "1" + ")" * 99, 1),
        ("9" * 10, None),
    ],
)
def test_expressions(text: str, value: int | None) -> None:
    found = expression(text)
    assert (found and found[0]) == value


@given(
    st.recursive(
        st.integers(1, 50).map(str),
        lambda part: st.tuples(part, st.sampled_from("+-*/"), part).map(
            lambda three: f"({three[0]}{three[1]}{three[2]})"
        ),
        max_leaves=8,
    )
)
def test_values_are_those_of_exact_arithmetic(text: str) -> None:
    if len(text) > 200:
        return
    exact = "".join(f"Fraction({part})" if part.isdigit() else part for part in _split(text))
    try:
        expected = Fraction(eval(exact, {"Fraction": Fraction}))
    except ZeroDivisionError:
        assert expression(text) is None
    else:
        found = expression(text)
        assert found is not None and found[0] == expected
        assert found[1] == [int(part) for part in _split(text) if part.isdigit()]


def _split(text: str) -> list[str]:
    import re

    return re.findall(r"[0-9]+|.", text)


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("<think>44 + 19 = 63</think><answer>44 + 19 + 35</answer>", 1.0),
        ("<answer>44+19+35 = 98</answer>", 1.0),  # TinyZero's own example ends so
        ("<answer>1</answer> no: <answer>(35 + 44) + 19</answer>", 1.0),
        ("<answer>98</answer>", 0.0),
        ("<answer>44 + 19 + 35 + 44 - 44</answer>", 0.0),
        ("<answer>44 + 54</answer>", 0.0),
        ("44 + 19 + 35", 0.0),
        ("<answer>__import__('os')</answer>", 0.0),
        ("</answer><answer>44 + 19 + 35", 0.0),
    ],
)
def test_verify(task: EquationTask, response: str, reward: float) -> None:
    (prompt,) = task.suites()["heldout"]
    assert "[44, 19, 35]" in prompt.text and "98" in prompt.text
    verdict = task.verify(prompt, response)
    assert verdict.reward == reward and (verdict.solution is not None) == (reward == 1.0)


def test_held_out_rows_are_not_trained_on(task: EquationTask) -> None:
    assert isinstance(task, Task)
    assert [prompt.id for prompt in task.train_prompts()] == ["row-2", "row-3"]
    assert [prompt.id for prompt in task.suites()["heldout"]] == ["row-1"]
    assert task.expert(task.train_prompts()[0]) is None and task.notes() == []


def test_subsets_nest(task: EquationTask) -> None:
    settings = {name: getattr(task, name) for name in ("path", "num_heldout")}
    one, two = (EquationTask(**settings, num_prompts=count).train_prompts() for count in (1, 2))
    assert one == two[:1]


@pytest.mark.parametrize(
    "row",
    ['{"nums": [1, 2]}', '{"target": 3}', '{"nums": [1, "2"], "target": 3}', '{"nums": [1, 2], "target": 3.5}', "x"],
)
def test_a_bad_row_is_one_sentence(tmp_path: Path, row: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(row + "\n")
    with pytest.raises(ValueError, match=r"row 1 has no list of 2 to 8 whole numbers in 'nums'"):
        EquationTask(path=str(path)).train_prompts()


def test_too_few_rows_and_bad_templates_are_one_sentence(task: EquationTask) -> None:
    with pytest.raises(ValueError, match="leaves 0 problems to train on beside 3 held-out ones"):
        EquationTask(path=task.path, num_heldout=3).train_prompts()
    with pytest.raises(ValueError, match=r"prompt_template lacks \{target\}"):
        EquationTask(path=task.path, prompt_template="{numbers}")
    with pytest.raises(ValueError, match="path is null"):
        EquationTask()


def test_hostile_text_takes_no_time(task: EquationTask) -> None:
    (prompt,) = task.suites()["heldout"]
    started = time.process_time()
    for text in ("<answer>" * 20_000, "<answer>" + "(" * 50_000 + "</answer>", "<answer>" + "9*" * 99 + "9</answer>"):
        assert task.verify(prompt, text).reward == 0.0
    assert time.process_time() - started < 1.0
