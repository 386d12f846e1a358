"""The page of one run's responses: filters and orders in a browser, hostile text, one sentence for what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from browser import elements, in_a_browser, used
from fake_study import HOSTILE
from pyarrow import parquet

from dashboards.__main__ import main
from dashboards.page.rollouts import MOST_KEPT, chosen, rollouts_html, size


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


def keep(folder: Path, step: int, rows: list[dict[str, Any]]) -> None:
    """As the trainer keeps the responses of a step."""
    (folder / "rollouts").mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist([{**row, "step": step} for row in rows])
    parquet.write_table(table, folder / "rollouts" / f"step-{step:06d}.parquet", compression="zstd")


def response(text: str, correct: bool, logprob: float, influence: float | None) -> dict[str, Any]:
    return {"group": 0, "prompt_id": "p", "prompt": "1+1=", "response": text, "answer": None, "reward": 0.4 + correct,
            "correct": correct, "finish_reason": "stop", "tokens": [text, HOSTILE], "token_ids": [1, 2],
            "logprobs": [logprob, 0.0], "entropy": [0.5, 1.0], "advantage": [1.0, 1.0],
            "influence": None if influence is None else [influence, -influence]}  # fmt: skip


KEPT = [
    response("e", True, -5.0, None),
    response("f", False, -0.5, 0.3),
    response("g", False, -7.0, None),
    response("h", True, -1.0, 0.4),
]


@in_a_browser
def test_kept_rollouts_take_the_place_of_a_steps_ledger_and_have_the_same_filters(tmp_path: Path) -> None:
    run = write(tmp_path / "run", ROWS)
    keep(run, 10, KEPT)
    (run / "rollouts" / ".step-000020.parquet.host.1.tmp").write_bytes(b"torn")
    page = tmp_path / "page.html"
    page.write_text(rollouts_html(run))
    found, problems = used(
        page,
        """
        const at = (name) => page.getElementById("token-" + name), seen = {};
        const set = (name, value) => { at(name).value = value; at(name).dispatchEvent(new Event("change")); };
        const firsts = () => [...page.querySelectorAll(".response .prompt + .token")];
        const first = () => firsts().map((token) => token.textContent).join("");
        seen.all = first();
        set("step", "10"); seen.step = first();
        for (const answer of ["correct", "incorrect"]) { set("answer", answer); seen[answer] = first(); }
        set("answer", "");
        for (const order of ["surprise", "influence"]) { set("order", order); seen[order] = first(); }
        for (const color of ["influence", "entropy", "ratio"]) {
          set("color", color);
          seen[color + "Color"] = firsts().map((token) => token.style.backgroundColor !== "transparent");
        }
        firsts()[3].dispatchEvent(new Event("click", { bubbles: true }));
        const lines = page.getElementById("token-tip").textContent.split(String.fromCharCode(10));
        seen.tip = lines.filter((line) => line.includes("not computed"));
        return seen;
        """,
    )
    seen = json.loads(found)
    # Kept first; of the ledgers step 0 only. Reward 0.4 is incorrect: kept rollouts say so themselves.
    assert (seen["all"], seen["step"], seen["correct"], seen["incorrect"]) == ("efghab", "efgh", "eh", "fg")
    # Means of -log-prob: e 2.5, f 0.25, g 3.5, h 0.5; sums of |influence|: h 0.8, f 0.6, e and g were not looked at.
    assert (seen["surprise"], seen["influence"]) == ("gehf", "hfeg")
    assert seen["influenceColor"] == [True, True, False, False] and seen["entropyColor"] == [True] * 4
    assert seen["ratioColor"] == [False] * 4 and seen["tip"] == ["influence not computed nats", "ratio not computed",
                                                                 "coefficient not computed"]  # fmt: skip
    assert problems == []


def test_what_is_chosen_is_chosen_among_all_before_the_page_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def texts(only: str | None, most: str | None) -> str:
        return "".join(str(row["tokens"][0]) for row in chosen(KEPT, only, most))

    assert texts(None, None) == "efgh" and texts("correct", None) == "eh" and texts("incorrect", "surprising") == "gf"
    assert texts(None, "surprising") == "gehf" and texts(None, "influential") == "hf", "what nobody looked at has none"
    # -(-5 + 0) / 2 and |0.4| + |-0.4|.
    assert size(KEPT[0], "surprising") == 2.5 and size(KEPT[3], "influential") == pytest.approx(0.8)
    run = tmp_path / "run"
    keep(run, 0, [response(f"{number}", False, -float(number), None) for number in range(MOST_KEPT + 5)])
    assert main(["rollouts", str(run), "--most", "surprising", "--only", "incorrect"]) == 0
    page = (run / "rollouts.html").read_text()
    assert f"{MOST_KEPT} responses of 1 step, of one run, incorrect ones, most surprising first; 5 more are in" in page
    assert main(["rollouts", str(run), "--only", "correct"]) == 2
    assert f"has no response of this kind among {MOST_KEPT + 5}" in capsys.readouterr().err
    (run / "rollouts" / "step-000001.parquet").write_bytes(b"torn")
    assert main(["rollouts", str(run)]) == 2
    assert "step-000001.parquet cannot be read as Parquet" in capsys.readouterr().err


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
