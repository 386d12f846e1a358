"""``study=claims``: which runs the claims share, what is refused before anything is queued, and seeds in looks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeps.after.results import check_claims
from sweeps.claims import start as start_module
from sweeps.claims.arms import cheapest_first
from sweeps.claims.claim import ClaimConfig, chosen_claims, load_claims
from sweeps.claims.looks import look_levels, spent
from sweeps.claims.request import asked
from sweeps.compose.compose import CONF
from trainer.contract.settings import ConfigError

Sweep = Callable[..., int]
Capture = pytest.CaptureFixture[str]
DEFAULTS = {"claims": "all", "testbed": None, "until": None, "hours": None, "seeds": [20, 21], "looks": [3, 5]}


def claim(number: int, **arms: str) -> ClaimConfig:
    return ClaimConfig(
        number=number, statement="S", source="P", arms={arm: (text,) for arm, text in arms.items()}, tests=()
    )


def document(tmp_path: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "outputs" / "sweeps" / name / "sweep.json").read_text())
    return found


def test_the_shipped_claims_are_thirty_and_can_be_judged() -> None:
    for testbed, least in ((None, 30), ("real", 10)):
        claims = load_claims(testbed)
        assert len(claims) >= least
        check_claims(
            [
                {
                    "number": item.number,
                    "statement": item.statement,
                    "source": item.source,
                    "arms": {arm: arm for arm in item.arms},
                    "tests": [dict(test) for test in item.tests],
                }
                for item in claims
            ]
        )
    assert [item.number for item in load_claims()] == list(range(1, 31))


@pytest.mark.slow
@pytest.mark.parametrize("testbed", [[], ["testbed=real"]])
def test_every_arm_of_the_shipped_claims_is_a_run(sweep: Sweep, capsys: Capture, testbed: Sequence[str]) -> None:
    assert sweep("-m", "study=claims", "seed=0", "plan=true", *testbed) == 0
    claims = load_claims("real" if testbed else None)
    out = capsys.readouterr().out
    assert all(f"claim {item.number:>2}" in out for item in claims)
    assert out.count(" new\n") >= len(claims) if not testbed else 20


@pytest.mark.slow
def test_claims_share_runs(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("-m", "study=claims", "claims=1,8,10,21", "seed=0,1") == 0
    out = capsys.readouterr().out
    # 1: one, four and eight updates; 21: temperature 0.6 beside one update; 8 and 10: four updates.
    found = document(tmp_path, "claims-steps-3")
    assert len(found["cells"]) == 8 and "8 to run" in out
    levels = {item["number"]: item["arms"] for item in found["claims"]}
    assert levels[8]["GRPO"] == levels[10]["GRPO"] == levels[1]["four updates"] == "optim.updates_per_rollout=4"
    assert levels[21]["1.0"] == levels[1]["one update"]
    assert all(item["seeds"] == [0, 1] for item in found["claims"])
    added = [(line.split()[1], line.split()[2]) for line in out.splitlines() if "runs more" in line]
    assert added == [("8", "2"), ("10", "0"), ("1", "4"), ("21", "2")], "the cheapest first"
    assert sweep("-m", "study=claims", "claims=1", "seed=0,1") == 0
    assert "nothing to run" in capsys.readouterr().out
    again = document(tmp_path, "claims-steps-3")
    assert {item["number"]: item["arms"] for item in again["claims"]} == levels, "the other claims stay"
    assert {cell["signature"] for cell in again["cells"]} == {cell["signature"] for cell in found["cells"]}


def test_a_plan_shows_the_order_and_starts_nothing(sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    assert sweep("-m", "study=claims", "claims=21", "plan=true", "seed=0") == 0
    out = capsys.readouterr().out
    assert "claim 21    2 runs more" in out and "2 new" in out and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["claims=99"], "claims=99 does not exist: there are 1, 2"),
        (["claims=one"], "claims=one is no whole number"),
        (["testbed=huge"], "has arms under testbeds.huge"),
        (["until=tired"], "until=tired is not known: until=decided"),
        (["hours=0"], "hours=0 is no number of hours above 0"),
        (["hours=1", "claims=21", "seed=0"], "hours=1 needs earlier runs to estimate from"),
        (["until=decided", "claims=21", "seed=0"], "until=decided needs MLflow to judge from"),
        (["factor=clip_high"], "factor cannot be set beside study=claims"),
        (["optim.lr=1e-3,1e-4"], "optim.lr names several values"),
        (["rollout.temperature=0.6", "claims=21"], "claim 21: two of its arms are the same run (0.6, 1.0)"),
        (["rollout.groups=4", "claims=21"], "rollout.groups is not a setting"),
        (["looks=[3,x]"], "looks=x is no whole number"),
    ],
)
def test_what_cannot_be_run_is_a_sentence(
    sweep: Sweep, tmp_path: Path, capsys: Capture, words: Sequence[str], sentence: str
) -> None:
    assert sweep("-m", "study=claims", *words) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("number: 1\nstatement: S\nsource: P\narms: {a: []}\n", "has no tests"),
        ("number: 1\nclaim: S\n", "has 'claim': a claim has arms, base"),
        ("- 1\n", "is no mapping of arms"),
        ("statement: a: b\n", "is not YAML"),
        ("number: 1\nstatement: S\nsource: P\narms: {a: lr}\ntests: [{}]\n", "arms.a is a list of overrides such as"),
        ("number: 1\nstatement: S\nsource: P\narms: [a]\ntests: [{}]\n", "arms is a mapping of names"),
    ],
)
def test_a_file_that_is_no_claim_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "01_x.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_claims(folder=tmp_path)
    assert sentence in str(error.value) and "01_x.yaml" in str(error.value)


def test_two_claims_with_one_number_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(
            "number: 3\nstatement: S\nsource: P\narms: {a: []}\ntests: [{value: 1}]\n"
        )
    with pytest.raises(ConfigError, match=r"two files of .* have number 3"):
        load_claims(folder=tmp_path)


def test_claims_keep_the_order_in_which_they_are_asked_for() -> None:
    assert [item.number for item in chosen_claims(load_claims(), [10, 1, 10])] == [10, 1]


def test_the_words_of_a_study() -> None:
    found = asked(["study=claims", "claims=3,1", "testbed=real", "seed=range(4,6)", "optim.lr=1e-4"], DEFAULTS)
    assert (found.numbers, found.testbed, found.seeds, found.words) == ((3, 1), "real", (4, 5), ("optim.lr=1e-4",))
    assert asked(["study=claims"], DEFAULTS).seeds == (20, 21) and asked(["claims=3"], DEFAULTS).numbers == (3,)


def test_each_next_claim_adds_the_least() -> None:
    first, second, third = claim(1, a="x", b="y"), claim(2, a="x", b="z"), claim(3, a="w")
    costs = {1: {"x": 5.0, "y": 1.0}, 2: {"x": 5.0, "z": 2.0}, 3: {"w": 5.5}}
    # 3 costs 5.5, 1 costs 6 and 2 costs 7; once 1 has run x, 2 adds 2.
    assert [item.number for item in cheapest_first([first, second, third], costs)] == [3, 1, 2]


def test_looks_spend_the_error_probability_once() -> None:
    assert spent(0.5) == pytest.approx(0.05 * math.log(1 + (math.e - 1) / 2))  # 0.0310, Lan and DeMets
    levels = look_levels([3, 5, 8, 12])
    assert sum(levels) == pytest.approx(0.05) and all(level > 0 for level in levels)
    assert look_levels([5]) == [pytest.approx(0.05)]


def test_seeds_are_added_only_for_claims_that_are_not_decided(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    answers = iter([[8, 21], [21]])
    seen = []

    def judged(study: Any, uri: str) -> list[int]:
        seen.append({item["number"]: (item["seeds"], item["alpha"]) for item in study.claims})
        ran = {(cell.level.name, cell.seed) for cell in study.cells}
        arms = {(level, seed) for item in study.claims for level in item["arms"].values() for seed in item["seeds"]}
        assert arms == ran, "every arm of every claim is a level of the sweep, with the claim's seeds"
        return next(answers)

    monkeypatch.setattr(start_module, "undecided", judged)
    monkeypatch.setattr(start_module, "absolute", lambda uri: "sqlite:///x.db")
    words = ("claims=1,8,21", "until=decided", "seed=0", "looks=[1,2]")
    assert sweep("-m", "study=claims", *words) == 0
    levels = [round(level, 6) for level in look_levels([1, 2])]
    assert seen[0] == dict.fromkeys((1, 8, 21), ([0], levels[0]))
    assert seen[1] == {1: ([0], levels[0]), 8: ([0, 1], levels[1]), 21: ([0, 1], levels[1])}
    # Seed 0: four arms (1.0 of claim 21 is one update of claim 1). Seed 1: four updates, and both temperatures.
    assert len(document(tmp_path, "claims-steps-3")["cells"]) == 4 + 3
    assert "look 2 of 2: 2 seeds, 2 claims at level" in capsys.readouterr().out


def test_the_folder_of_claims_is_no_group_of_settings() -> None:
    from sweeps.compose.compose import groups

    assert (CONF / "claim").is_dir() and "claim" not in groups()
