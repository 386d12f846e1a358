"""The ledger in a real run: on the shipped model with its CPU kernels and shared prompts, and without moving a byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from runs import COIN, MOVING, metrics
from whole_runs import trained

from trainer.engine.base import EnginePool
from trainer.ledger.ledger import Ledger
from trainer.storage.record import RunFolder


@pytest.fixture(scope="module")
def engines() -> Iterator[EnginePool]:
    pool = EnginePool()
    yield pool
    pool.close()


def measured(path: Path, engines: EnginePool, changes: dict[str, object]) -> RunFolder:
    settings = MOVING | {"optim.updates_per_rollout": 2, "steps": 3, "evaluation.every": 0}
    return trained(path, engines, settings | changes)


ON = COIN | {"accounting.ledger_every": 2, "accounting.ledger_rows": 0}


@pytest.fixture(scope="module")
def watched(engines: EnginePool, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return measured(tmp_path_factory.mktemp("on"), engines, ON)


def test_a_ledger_moves_no_other_number(watched: RunFolder, engines: EnginePool, tmp_path: Path) -> None:
    off = measured(tmp_path, engines, COIN | {"accounting.ledger_every": 0})
    lines = [{k: v for k, v in line.items() if not k.startswith("ledger/")} for line in metrics(watched)]
    assert lines == metrics(off)
    assert not (off.path / "tokens.jsonl").exists()


def test_it_is_exact_on_the_cpu_kernels_and_adds_up(watched: RunFolder) -> None:
    lines = metrics(watched)
    assert [any(key.startswith("ledger/") for key in line) for line in lines] == [True, False, True]
    for line in (lines[0], lines[2]):
        assert line["ledger/exact"] == 1
        # float32: weights of order 0.1 differ before and after by 3e-3, to seven digits.
        largest = max(abs(line[f"ledger/{part}"]) for part in ("policy", "regularizers", "momentum"))
        assert line["ledger/identity_error"] < 1e-3 * largest
        assert line["ledger/tokens_error"] < 1e-3 * largest
        assert line["ledger/regularizer_bonus"] == line["ledger/regularizers"] != 0
        quadrants = ("positive_likely", "positive_unlikely", "negative_likely", "negative_unlikely", "neutral")
        for parts in (
            quadrants,
            *[[f"{kind}_{n}" for n in range(10)] for kind in ("entropy_decile", "position_tenth")],
        ):
            assert sum(line[f"ledger/{part}"] for part in parts) == pytest.approx(
                line["ledger/policy"], abs=1e-3 * largest
            )
        # A step of 3e-3 is no small one: first order is right in sign and size, not in digits.
        assert line["ledger/measured"] == line["ledger/predicted"] + line["ledger/residual"]


def test_small_steps_are_predicted(engines: EnginePool, tmp_path: Path) -> None:
    small = measured(tmp_path, engines, ON | {"optim.lr": 1e-5, "regularizer.bonus.coef": 0.2})
    for line in (metrics(small)[0], metrics(small)[2]):
        assert line["ledger/predicted"] == pytest.approx(line["ledger/measured"], rel=0.05)


def test_chosen_steps_have_a_ledger(engines: EnginePool, tmp_path: Path) -> None:
    chosen = measured(tmp_path, engines, {"accounting.ledger_every": 0, "accounting.ledger_steps": [1]})
    assert ["ledger/predicted" in line for line in metrics(chosen)] == [False, True, False]


def test_responses_token_by_token(watched: RunFolder) -> None:
    rows = [json.loads(line) for line in (watched.path / "tokens.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {0, 2} and len(rows) == 2 * 8
    for row in rows:
        lengths = {len(row[name]) for name in ("tokens", "influence", "entropy", "logprobs", "advantage", "ratio")}
        assert len(lengths) == 1 and row["tokens"]
        assert row["prompt"].endswith(":") and row["reward"] in (0.0, 1.0)
    assert any(value != 0 for row in rows for value in row["influence"])


def test_without_a_forward_mode_there_are_differences(
    watched: RunFolder, engines: EnginePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise NotImplementedError("an operator without forward mode")

    seen: list[Ledger] = []
    kept = Ledger.metrics
    monkeypatch.setattr("trainer.ledger.tangents._forward_mode", unsupported)
    monkeypatch.setattr(Ledger, "metrics", lambda self: seen.append(self) or kept(self))
    other = metrics(measured(tmp_path, engines, ON))[0]
    line = metrics(watched)[0]
    assert other["ledger/exact"] == 0
    assert other["ledger/predicted"] == line["ledger/predicted"]
    size = float(torch.cat([entry.tokens.influence for entry in seen[0].entries]).abs().sum())
    assert other["ledger/tokens_error"] < 0.02 * size
    for name in ("positive_likely", "positive_unlikely", "negative_likely", "negative_unlikely"):
        assert other[f"ledger/{name}"] == pytest.approx(line[f"ledger/{name}"], abs=0.02 * size)
