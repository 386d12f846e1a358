"""The page of one run's responses: filters and orders in a browser, hostile text, one sentence for what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browser import elements, in_a_browser, used
from fake_study import HOSTILE

from dashboards.__main__ import main
from dashboards.page.rollouts import MOST_KEPT, rollouts_html


def row(step: int, reward: float, text: str, logprob: float, influence: float) -> dict[str, Any]:
    numbers = {"entropy": [0.5, 1.0], "advantage": [1.0, 1.0], "ratio": [1.0, 1.1], "coefficient": [1.0, 1.0]}
    return {"step": step, "update": 0, "prompt": "1+1=", "reward": reward, "tokens": [text, HOSTILE],
            "logprobs": [logprob, 0.0], "influence": [influence, -influence], **numbers}  # fmt: skip


ROWS = [
    row(0, 1.0, "a", -1.0, 0.1),
    row(0, 0.0, "b", -9.0, 0.2),
    row(10, 1.0, "c", -2.0, 0.9),
    row(10, 0.0, "d", -3.0, 0),
]


def write(folder: Path, rows: list[dict[str, Any]], tail: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokens.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return folder


@in_a_browser
def test_filters_and_orders_in_a_browser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["rollouts", str(write(tmp_path / "run", ROWS, '{"torn": ')), "--output", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    found, problems = used(
        page,
        """
        const at = (name) => page.getElementById("token-" + name), seen = {};
        const set = (name, value) => { at(name).value = value; at(name).dispatchEvent(new Event("change")); };
        const first = () => [...page.querySelectorAll(".response .token:first-of-type, .response .prompt + .token")]
          .map((token) => token.textContent).join("");
        seen.all = first();
        for (const order of ["surprise", "influence"]) { set("order", order); seen[order] = first(); }
        for (const answer of ["correct", "incorrect"]) { set("answer", answer); seen[answer] = first(); }
        set("answer", ""); set("step", "10"); seen.step = first();
        seen.color = page.querySelector(".token").style.backgroundColor !== "";
        return seen;
        """,
    )
    # Means of -log-prob: a 0.5, b 4.5, c 1, d 1.5; sums of |influence|: a 0.2, b 0.4, c 1.8, d 0.
    expected = {"all": "abcd", "surprise": "bdca", "influence": "cbad", "correct": "ca", "incorrect": "bd"}
    assert json.loads(found) == {**expected, "step": "cd", "color": True} and problems == []


def test_the_page_is_inert_and_small(tmp_path: Path) -> None:
    page = rollouts_html(write(tmp_path / "run", ROWS))
    assert HOSTILE not in page
    assert not [tag for tag, found in elements(page) if "src" in found or "href" in found or "onerror" in found]
    many = rollouts_html(write(tmp_path / "run", [row(step, 1.0, "t", -1.0, 0.1) for step in range(MOST_KEPT + 1)]))
    assert f"{MOST_KEPT // 2 + 1} responses of" in many and f"{MOST_KEPT // 2} more are in tokens.jsonl" in many


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is not there: give the folder of a run"),
        ("", "holds no response yet"),
        ("{\n", "line 1 is damaged"),
        ('{"step": 1}\n', "line 1 is no response"),
    ],
)
def test_what_is_missing_is_said(
    content: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "tokens.jsonl").write_text(content)
    assert main(["rollouts", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
