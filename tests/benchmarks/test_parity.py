"""Parity with the peers: our side of it, what counts as agreement, and what is said where a package is missing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import parity_peers
from benchmarks.common import RESULTS
from benchmarks.parity import compare, numbers, ours
from benchmarks.parity_cases import CASES, Case
from trainer.objective.surrogates.unclipped import Unclipped

GIVEN = numbers()
PLAIN = {"GRPO", "Dr. GRPO", "KL to the reference", "GRPO advantages"}
"""Cases that plain GRPO, with its reduction or an added term, is enough for."""


def told(case: Case) -> dict[str, Any]:
    """A peer that says what we say."""
    own = ours(case, GIVEN)
    if "advantage" in case.ours:
        return {"advantages": own.values.tolist()}
    return {"gradient": own.values.tolist(), "loss": own.loss}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_peer_that_says_the_same_agrees_and_one_that_is_off_does_not(case: Case) -> None:
    answer = told(case)
    assert compare(case, GIVEN, answer)["agrees"]
    what = "advantages" if "advantages" in answer else "gradient"
    off = torch.tensor(answer[what], dtype=torch.float64)
    off.view(-1)[off.abs().argmax()] *= 1 + 2e-6
    assert not compare(case, GIVEN, answer | {what: off.tolist()})["agrees"]


@pytest.mark.parametrize("case", [case for case in CASES if case.method not in PLAIN], ids=lambda case: case.name)
def test_the_numbers_tell_a_method_from_the_bare_ratio(case: Case) -> None:
    """Thresholds are reached: otherwise two functions could agree because neither does anything."""
    if "advantage" in case.ours:
        bare = replace(case, ours={"advantage": CASES[-4].ours["advantage"]})
    else:
        bare = replace(case, ours={**case.ours, "surrogate": Unclipped(), "weight": {}})
    found, without = ours(case, GIVEN), ours(bare, GIVEN)
    assert float((found.values - without.values).abs().max()) > 1e-3 * float(without.values.abs().max())


@pytest.mark.parametrize("peer", ["trl", "verl"])
def test_a_package_that_is_missing_is_said_to_be(
    peer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = next(case for case in CASES if case.peer == peer)
    monkeypatch.setitem(parity_peers.sys.modules, peer, None)
    request = {"peer": peer, "batch": GIVEN, "cases": {case.name: dict(case.settings)}}
    monkeypatch.setattr(parity_peers.sys, "stdin", io.StringIO(json.dumps(request)))
    parity_peers.main()
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert answers[case.name]["missing"].startswith(f"{peer} is not installed: ")
    row = compare(case, GIVEN, answers[case.name])
    assert row["missing"] == answers[case.name]["missing"] and "agrees" not in row


def test_the_committed_table_has_every_case() -> None:
    document = json.loads((RESULTS / "parity.json").read_text())
    assert [(row["method"], row["peer"]) for row in document["data"]["compared"]] == [(c.method, c.peer) for c in CASES]
    assert all(row["agrees"] for row in document["data"]["compared"])
